"""axe on the main pages: no violation of WCAG 2.1 A and AA, light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from governance.audit.sealer import seal_once
from tests.live.browser import CHROMIUM, Browser
from tests.live.camera import Camera
from tests.live.portal_screens import Screen, add_classifier, add_hosted, screens_of
from tests.unit.assay.portal_data import tell_story

pytestmark = [
    pytest.mark.live,
    pytest.mark.long,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
# axe-core 4.12.1 of Deque (MPL-2.0), unchanged.
AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
RUN = f"""axe.run({{ runOnly: {json.dumps(TAGS)}, resultTypes: ["violations"] }})
  .then(({{ violations }}) => violations.flatMap(({{ id, nodes }}) => nodes.slice(0, 3)
    .map((node) => `${{id}}: ${{node.target}} ${{node.any.map((each) => each.message)}}`)))"""


@pytest.fixture
def camera(live_server: Any, policy: object, redis: object) -> Iterator[Camera]:
    with transaction.atomic():
        company = tell_story()
        add_classifier(company)
        add_hosted(company)
    seal_once()
    browser = Browser()
    yield Camera(browser, live_server.url, company)
    browser.close()


def violations(camera: Camera, screen: Screen, scheme: str) -> Iterator[str]:
    """Yield a sentence for each violation on a page."""
    camera.open(screen.person, screen.path, scheme)
    # The page's content security policy would refuse a script element.
    camera.browser.run(f"(() => {{ {AXE} }})()")
    answer = camera.browser.call(
        "Runtime.evaluate", expression=RUN, awaitPromise=True, returnByValue=True
    )
    assert "exceptionDetails" not in answer, answer
    for violation in answer["result"]["value"]:
        yield f"{screen.name}, {scheme}: {violation}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_violate_no_accessibility_rule(camera: Camera, scheme: str) -> None:
    camera.resize(1280, 900)
    screens = screens_of(camera.company)
    assert [fault for screen in screens for fault in violations(camera, screen, scheme)] == []
