"""The way from Home to a verdict in a real browser: its clicks and page loads are counted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from governance.people.models import Person
from governance.reviews.models import Decision, Review
from tests import proofs
from tests.live.browser import CHROMIUM, Browser
from tests.unit.assay.sign_in_support import give_totp, totp_now
from tests.unit.assay.test_api_releases import people, release
from tests.unit.assay.test_conditions_surfaces import attested

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

__all__ = ["attested", "people", "release"]


class Hand:
    """A reviewer's hand: counts its clicks and the pages that load after Home."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.clicks = 0
        self._before = browser.loads

    @property
    def loads(self) -> int:
        return self.browser.loads - self._before

    def click(self, selector: str) -> None:
        self.browser.click(selector)
        self.clicks += 1

    def click_through(self, selector: str, heading: str) -> None:
        """Click on what leads to another page."""
        self.browser.run("window.left = true")
        self.click(selector)
        arrived = "window.left === undefined && document.readyState === 'complete'"
        self.browser.wait(f"{arrived} && document.body.textContent.includes('{heading}')")


@pytest.fixture
def review(policy: object, redis: object, attested: dict[str, Any]) -> Review:
    """A review of a real release, whose whole checklist is met."""
    return Review.objects.get(pk=attested["review"]["id"])


@pytest.fixture
def browser() -> Iterator[Browser]:
    browser = Browser()
    size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    yield browser
    browser.close()


def at_home(browser: Browser, live_server: Any, ago: timedelta = timedelta(0)) -> Hand:
    client = proofs.signed_in(Client(), Person.objects.get(name="Carla"), ago=ago)
    session = client.cookies["sessionid"].value
    browser.call("Network.setCookie", name="sessionid", value=session, url=live_server.url)
    browser.go(live_server.url)
    return Hand(browser)


def open_review(hand: Hand, review: Review) -> None:
    hand.click_through(f"main a[href='/reviews/{review.pk}']", "Your decision")


def attest(hand: Hand, code: str) -> None:
    hand.click(f"#attest-{code}")
    hand.click("#attest-note")
    hand.browser.type("The tech lead is named in the answers.")
    hand.click("#attest button")
    hand.browser.wait("document.body.textContent.includes('Attested 1 item.')")


def approve(hand: Hand, heading: str) -> None:
    hand.click("#verdict-approve")
    hand.click("#reason")
    hand.browser.type("Better on every slice.")
    hand.click_through("#decision button[type=submit]", heading)


def test_a_verdict_takes_four_clicks_and_two_page_loads(
    browser: Browser, live_server: Any, review: Review
) -> None:
    hand = at_home(browser, live_server)

    open_review(hand, review)
    approve(hand, "Recorded.")

    assert (hand.clicks, hand.loads) == (4, 2)
    assert Decision.objects.latest("pk").verdict == "approve"
    assert browser.faults == []


def test_one_item_to_judge_takes_three_clicks_more_and_no_page_load(
    browser: Browser, live_server: Any, review: Review
) -> None:
    item = review.checklist.filter(automatic=False)[0]
    review.checklist.filter(pk=item.pk).update(state="open", attested_by=None, attested_at=None)
    hand = at_home(browser, live_server)

    open_review(hand, review)
    attest(hand, item.code)
    approve(hand, "Recorded.")

    assert (hand.clicks, hand.loads) == (7, 2)


def test_a_second_factor_takes_one_click_and_one_page_load_more(
    browser: Browser, live_server: Any, review: Review
) -> None:
    carla = Person.objects.get(name="Carla")
    give_totp(carla)
    hand = at_home(browser, live_server, timedelta(hours=1))

    open_review(hand, review)
    approve(hand, "Verify your identity")
    hand.browser.type(totp_now(carla))
    hand.click_through("main form button[type=submit]", "Recorded.")

    assert (hand.clicks, hand.loads) == (5, 3)
    assert Decision.objects.latest("pk").verdict == "approve"
