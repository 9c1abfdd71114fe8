"""The command palette in a real browser, by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests import proofs
from tests.live.browser import CHROMIUM, Browser
from tests.unit.assay.portal_data import Company, tell_story

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
CTRL = 2
OPEN = "document.getElementById('palette').open"
OPTIONS = "document.querySelectorAll('#palette-list [role=option]')"
POINTED = "document.getElementById('palette-input').getAttribute('aria-activedescendant')"


@pytest.fixture
def home(live_server: Any, policy: object, redis: object) -> Iterator[tuple[Browser, Company]]:
    """A browser on Home, with Enzo signed in."""
    with transaction.atomic():
        company = tell_story()
    session = proofs.signed_in(Client(), company.enzo).cookies["sessionid"]
    browser = Browser()
    size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    browser.call("Network.setCookie", name="sessionid", value=session.value, url=live_server.url)
    browser.go(live_server.url)
    yield browser, company
    browser.close()


def press(browser: Browser, key: str, modifiers: int = 0) -> None:
    codes = {"Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, "Tab": 9}
    for kind in ("keyDown", "keyUp"):
        text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
        known = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers, **text, **known
        )


def opened(browser: Browser) -> None:
    press(browser, "k", CTRL)
    browser.wait(f"{OPEN} && {OPTIONS}.length > 0")


def test_control_k_searches_chooses_and_opens_without_a_mouse(
    home: tuple[Browser, Company],
) -> None:
    browser, _ = home
    opened(browser)
    assert browser.run("document.activeElement.id") == "palette-input"
    browser.type("docstring-writer")
    browser.wait(f"{OPTIONS}[0]?.dataset.href === '/models/docstring-writer'")
    assert browser.run(POINTED) == "palette-0"
    press(browser, "ArrowDown")
    assert browser.run(POINTED) == "palette-1"
    press(browser, "ArrowUp")
    press(browser, "ArrowUp")
    assert browser.run(f"{POINTED} === {OPTIONS}[{OPTIONS}.length - 1].id") is True
    press(browser, "ArrowDown")
    assert browser.run("document.getElementById('palette-said').textContent").endswith("results")
    browser.run("window.left = true")
    press(browser, "Enter")
    browser.wait("window.left === undefined && location.pathname === '/models/docstring-writer'")
    assert browser.faults == []


def test_enter_waits_for_the_results_of_what_was_typed(home: tuple[Browser, Company]) -> None:
    browser, company = home
    opened(browser)
    browser.run("window.left = true")
    browser.type(f"release {company.waiting.pk}")
    press(browser, "Enter")
    browser.wait(
        f"window.left === undefined && location.pathname === '/releases/{company.waiting.pk}'"
    )


def test_escape_closes_it_the_focus_stays_inside_and_goes_back(
    home: tuple[Browser, Company],
) -> None:
    browser, _ = home
    browser.run("document.querySelector('.side-link').focus()")
    opened(browser)
    for _ in range(5):
        press(browser, "Tab")
        inside = "document.activeElement === document.body || document.activeElement.closest"
        assert browser.run(f"Boolean({inside}('#palette'))") is True
    press(browser, "Escape")
    browser.wait(f"!{OPEN}")
    assert browser.run("document.activeElement.className") == "side-link"
    # The link in the menu opens it too, and it begins empty.
    browser.click(".side-search")
    browser.wait(f"{OPEN} && {OPTIONS}.length > 0")
    assert browser.run("document.getElementById('palette-input').value") == ""
    press(browser, "k", CTRL)
    browser.wait(f"!{OPEN}")


def test_a_palette_that_opens_again_at_once_has_results(home: tuple[Browser, Company]) -> None:
    browser, _ = home
    opened(browser)
    # The event of the closing comes when it is open again.
    browser.run(
        "document.getElementById('palette').close(); document.querySelector('.side-search').click()"
    )
    browser.wait(f"{OPEN} && {OPTIONS}.length > 0")


def test_a_stale_answer_never_replaces_a_newer_one(home: tuple[Browser, Company]) -> None:
    browser, _ = home
    # The answer to the first letters is held back until the rest has been answered.
    browser.run(
        "window.asked = []; const real = window.fetch; window.fetch = (address, more) => {"
        " window.asked.push(address); return address.endsWith('q=d')"
        " ? new Promise((done) => setTimeout(() => done(real(address)), 800))"
        " : real(address, more); }; 1"
    )
    opened(browser)
    browser.type("d")
    browser.wait("window.asked.some((address) => address.endsWith('q=d'))")
    browser.type("ocstring-writer")
    browser.wait(f"{OPTIONS}[0]?.dataset.href === '/models/docstring-writer'")
    browser.run("new Promise((done) => setTimeout(done, 1000))")
    browser.wait("window.asked.length === 3")
    assert browser.run(f"{OPTIONS}[0].dataset.href") == "/models/docstring-writer"
    # Typing fast asks once.
    before = browser.run("window.asked.length")
    # In one step of the page, however slow the machine is.
    browser.run(
        "{ const field = document.getElementById('palette-input');"
        " for (const letter of 'abcdef') { field.value += letter;"
        " field.dispatchEvent(new Event('input', { bubbles: true })); } }"
    )
    browser.wait(f"window.asked.length > {before}")
    assert browser.run("window.asked.length") <= before + 2


def test_actions_of_the_open_page_are_offered_by_the_words_that_people_type(
    home: tuple[Browser, Company],
) -> None:
    browser, company = home
    browser.go(f"{browser.run('location.origin')}/deployments/{company.deployment.pk}")
    opened(browser)
    first = f"{OPTIONS}[0]?.textContent"
    browser.wait(f"{first}.includes('This page')")
    browser.type("retire")
    browser.wait(f"{first}.includes('Stop serving')")
    press(browser, "Enter")
    browser.wait(f"!{OPEN} && document.activeElement.id === 'reason'")
    press(browser, "k", CTRL)
    browser.wait(OPEN)
    browser.type("dark")
    browser.wait(f"{first}.includes('Use the dark theme')")
    press(browser, "Enter")
    browser.wait("document.documentElement.dataset.bsTheme === 'dark'")
    assert browser.faults == []


def test_it_fits_a_narrow_screen(home: tuple[Browser, Company]) -> None:
    browser, _ = home
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    browser.click(".topbar [data-palette]")
    browser.wait(f"{OPEN} && {OPTIONS}.length > 0")
    box = browser.run(
        "(({left, right, bottom}) => [left, right, bottom])"
        "(document.getElementById('palette').getBoundingClientRect())"
    )
    assert box[0] >= 0
    assert box[1] <= 390
    assert box[2] <= 800
    assert browser.run("document.documentElement.scrollWidth <= 390") is True


def test_a_part_that_loads_later_leaves_the_pages_title(home: tuple[Browser, Company]) -> None:
    browser, company = home
    browser.run(f"location.href = '/versions/{company.second.pk}'")
    browser.wait("document.querySelector('[aria-labelledby=ready] .tag') !== null")
    assert browser.run("document.title") == f"{company.second} · Assay"
