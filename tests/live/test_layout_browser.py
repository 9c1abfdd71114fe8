"""The main pages in a real browser at three widths, with long names: nothing overflows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction

from governance.audit.sealer import seal_once
from tests.live.browser import CHROMIUM, Browser
from tests.live.camera import Camera
from tests.live.portal_screens import (
    WIDTHS,
    Screen,
    add_classifier,
    add_hosted,
    lengthen,
    screens_of,
)
from tests.unit.assay.portal_data import tell_story

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
HEIGHT = 800
# The first three elements past the right edge of the page. Elements in a box that scrolls or clips
# them do not count.
PAST_THE_EDGE = """(() => {
  const edge = document.documentElement.clientWidth + 1;
  const clips = (box) => box && box !== document.body
    && (getComputedStyle(box).overflowX !== "visible" || clips(box.parentElement));
  const text = (each) => each.textContent.trim().slice(0, 40);
  const named = (each) => `${each.tagName} .${each.className}: ${text(each)}`;
  return [...document.querySelectorAll("body *:not(svg *, .visually-hidden, .skip)")]
    .filter((each) => each.checkVisibility() && each.getBoundingClientRect().right > edge)
    .filter((each) => !clips(each.parentElement)).slice(0, 3).map(named);
})()"""
CLIPPED_TABLES = """[...document.querySelectorAll(".table-responsive")]
  .filter((box) => box.checkVisibility() && box.scrollWidth > box.clientWidth + 1)
  .map((box) => `${box.getAttribute("aria-label")}: ${box.scrollWidth} in ${box.clientWidth}`)"""
MENU_HEIGHT = "document.querySelector('.side')?.scrollHeight ?? 0"


@pytest.fixture
def camera(live_server: Any, policy: object, redis: object) -> Iterator[Camera]:
    with transaction.atomic():
        company = tell_story()
        add_classifier(company)
        add_hosted(company)
        lengthen(company)
    seal_once()
    browser = Browser("--hide-scrollbars")
    yield Camera(browser, live_server.url, company)
    browser.close()


def faults_of(camera: Camera, screen: Screen) -> Iterator[str]:
    """Yield a sentence for each element that does not fit, and for each error in the browser."""
    camera.browser.faults.clear()
    camera.open(screen.person, screen.path)
    for width in WIDTHS:
        camera.resize(width, HEIGHT)
        for element in camera.browser.run(PAST_THE_EDGE):
            yield f"{screen.name}, {width}: {element}"
        # Tables may scroll on narrow screens only.
        if width == max(WIDTHS):
            for table in camera.browser.run(CLIPPED_TABLES):
                yield f"{screen.name}: {table}"
            if camera.browser.run(MENU_HEIGHT) > HEIGHT:
                yield f"{screen.name}: the menu is higher than the screen"
    for fault in camera.browser.faults:
        # Some screens show a refusal.
        if "the server responded with a status of 40" not in fault:
            yield f"{screen.name}: {fault}"


def test_nothing_overflows_with_long_names(camera: Camera) -> None:
    screens = screens_of(camera.company)
    assert [fault for screen in screens for fault in faults_of(camera, screen)] == []
