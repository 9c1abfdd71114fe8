"""A browser that opens the portal as people of the test company, and takes pictures."""

from __future__ import annotations

import base64
from typing import Any

from django.test import Client

from governance.people.models import Person
from tests import proofs
from tests.live.browser import Browser
from tests.unit.assay.portal_data import Company

# Charts are drawn again in the frame after a resize.
SETTLED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Camera:
    """A browser in which every person of the company is signed in."""

    def __init__(self, browser: Browser, url: str, company: Company) -> None:
        self.browser, self.url, self.company = browser, url, company
        self._sessions: dict[int, str] = {}
        # The first page of a process loads the application. On a busy machine this takes longer
        # than the browser waits.
        proofs.signed_in(Client(), company.enzo).get("/")

    def open(self, person: Person, path: str, scheme: str = "light") -> None:
        """Open a page as `person` in a light or dark theme."""
        if person.pk not in self._sessions:
            cookies = proofs.signed_in(Client(), person).cookies
            self._sessions[person.pk] = cookies["sessionid"].value
        session = self._sessions[person.pk]
        self.browser.call("Network.setCookie", name="sessionid", value=session, url=self.url)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.browser.call("Emulation.setEmulatedMedia", features=[feature])
        self.browser.go(self.url + path)

    def resize(self, width: int, height: int) -> None:
        """Change the size of the window, and wait until the page is drawn again."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.call("Emulation.setDeviceMetricsOverride", **size)
        self.browser.call("Runtime.evaluate", expression=SETTLED, awaitPromise=True)

    def picture(self, **options: Any) -> bytes:
        """Return a picture of the page, as PNG by default.

        Args:
            options: Parameters of Chromium's `Page.captureScreenshot`.
        """
        answer = self.browser.call("Page.captureScreenshot", **{"format": "png", **options})
        return base64.b64decode(answer["data"])
