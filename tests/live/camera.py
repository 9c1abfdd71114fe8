"""A browser that opens the portal as people of the test company, and takes pictures."""

from __future__ import annotations

import base64
import json
from typing import Any

from django.test import Client

from governance.people.models import Person
from tests import proofs
from tests.live.browser import Browser
from tests.unit.assay.portal_data import Company

# Charts are drawn again in the frame after a resize.
SETTLED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

SEND = """(() => {
  const form = document.createElement("form");
  form.method = "post";
  form.action = %s;
  const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
  for (const [name, value] of [...%s, ["csrfmiddlewaretoken", token]]) {
    const field = document.createElement("textarea");
    field.name = name;
    field.value = value;
    form.append(field);
  }
  document.body.append(form);
  window.left = true;
  HTMLFormElement.prototype.submit.call(form);
})()"""
# Parts that a page fetches when it is shown.
LOADED = "document.querySelector('.htmx-request') === null"
ARRIVED = "window.left === undefined && document.readyState === 'complete'"


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
        self._look_as(self._sessions[person.pk], scheme)
        self.browser.go(self.url + path)
        self.browser.wait(LOADED)

    def send(
        self, person: Person | None, path: str, body: list[tuple[str, str]], scheme: str = "light"
    ) -> None:
        """Send a form as `person`, without a session if None, and show the response."""
        if not self.browser.run("document.querySelector('[name=csrfmiddlewaretoken]') !== null"):
            self.browser.go(f"{self.url}/sign-in")
        # A recent second factor: the session of earlier pages may be too old.
        session = proofs.signed_in(Client(), person).cookies["sessionid"].value if person else ""
        self._look_as(session, scheme)
        self.browser.run(SEND % (json.dumps(path), json.dumps(body)))
        self.browser.wait(ARRIVED)
        self.browser.wait(LOADED)

    def _look_as(self, session: str, scheme: str) -> None:
        self.browser.call("Network.setCookie", name="sessionid", value=session, url=self.url)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.browser.call("Emulation.setEmulatedMedia", features=[feature])

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
