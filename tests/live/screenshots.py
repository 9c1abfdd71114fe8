"""Take the screenshots of the documentation, with the company that tests of the portal use.

ASSAY_ENV=test .venv/bin/python -m pytest -q -m live tests/live/screenshots.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from governance.audit.sealer import seal_once
from tests.live.browser import Browser
from tests.live.camera import Camera
from tests.live.test_palette_browser import opened
from tests.unit.assay.portal_data import tell_story

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "screenshots"


@pytest.fixture
def camera(live_server: Any, policy: object, redis: object) -> Iterator[Camera]:
    with transaction.atomic():
        company = tell_story()
        # Its evaluations have gates, which a real dossier names.
        company.waiting.dossier["evaluations"] = [{"gates": ["chrf", "perplexity"]}]
        company.waiting.save(update_fields=["dossier"])
    seal_once()
    browser = Browser("--hide-scrollbars")
    camera = Camera(browser, live_server.url, company)
    camera.resize(1440, 1000)
    yield camera
    browser.close()


def take(camera: Camera, name: str) -> None:
    """Write the screen to the file `name`.png."""
    (FOLDER / f"{name}.png").write_bytes(camera.picture())


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
        take(camera, name)
    camera.open(company.carla, review, "dark")
    take(camera, "review-dark")
    camera.open(company.enzo, "/")
    opened(camera.browser)
    camera.browser.type("writer")
    camera.browser.wait(
        "document.querySelector('#palette-list [role=option]').textContent.includes('writer')"
    )
    take(camera, "search-light")
    assert camera.browser.faults == []
