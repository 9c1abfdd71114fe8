"""Take the screenshots of the documentation, with the company that tests of the portal use.

ASSAY_ENV=test .venv/bin/python -m pytest -q -m live tests/live/screenshots.py
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from governance.audit.sealer import seal_once
from governance.people.models import Person
from tests import proofs
from tests.live.browser import Browser
from tests.live.test_palette_browser import opened
from tests.unit.assay.portal_data import Company, tell_story

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
SIZE = {"width": 1440, "height": 1000, "deviceScaleFactor": 1, "mobile": False}


@pytest.fixture
def camera(live_server: Any, policy: object, redis: object) -> Iterator[Camera]:
    with transaction.atomic():
        company = tell_story()
        # Its evaluations have gates, which a real dossier names.
        company.waiting.dossier["evaluations"] = [{"gates": ["chrf", "perplexity"]}]
        company.waiting.save(update_fields=["dossier"])
    seal_once()
    browser = Browser("--hide-scrollbars")
    browser.call("Emulation.setDeviceMetricsOverride", **SIZE)
    yield Camera(browser, live_server.url, company)
    browser.close()


class Camera:
    """A browser that opens pages of the company as its people."""

    def __init__(self, browser: Browser, url: str, company: Company) -> None:
        self.browser, self.url, self.company = browser, url, company

    def open(self, person: Person, path: str, scheme: str = "light") -> None:
        """Open a page as `person` in a light or dark theme."""
        session = proofs.signed_in(Client(), person).cookies["sessionid"]
        self.browser.call("Network.setCookie", name="sessionid", value=session.value, url=self.url)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.browser.call("Emulation.setEmulatedMedia", features=[feature])
        self.browser.go(self.url + path)

    def take(self, name: str) -> None:
        """Write the screen to the file `name`.png."""
        picture = self.browser.call("Page.captureScreenshot", format="png")["data"]
        (FOLDER / f"{name}.png").write_bytes(base64.b64decode(picture))


def test_screenshots(camera: Camera) -> None:
    company = camera.company
    review = f"/reviews/{company.review_open.pk}"
    for name, person, path in (
        ("overview-light", company.enzo, "/"),
        ("review-light", company.carla, review),
        ("version-light", company.enzo, f"/versions/{company.second.pk}"),
        ("deployment-light", company.enzo, f"/deployments/{company.deployment.pk}"),
        ("fine-tune-light", company.enzo, f"/jobs/{company.done.pk}"),
        ("audit-light", company.ada, "/audit"),
    ):
        camera.open(person, path)
        camera.take(name)
    camera.open(company.carla, review, "dark")
    camera.take("review-dark")
    camera.open(company.enzo, "/")
    opened(camera.browser)
    camera.browser.type("writer")
    camera.browser.wait(
        "document.querySelector('#palette-list [role=option]').textContent.includes('writer')"
    )
    camera.take("search-light")
    assert camera.browser.faults == []
