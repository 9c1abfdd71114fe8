"""The review page in a real browser: its forms, keys and the content security policy at work."""

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

Desk = tuple[Browser, Company]


@pytest.fixture
def desk(live_server: Any, policy: object, redis: object) -> Iterator[Desk]:
    """A browser on the open review, with Carla signed in."""
    with transaction.atomic():
        company = tell_story()
    session = proofs.signed_in(Client(), company.carla).cookies["sessionid"]
    browser = Browser()
    browser.call("Network.setCookie", name="sessionid", value=session.value, url=live_server.url)
    browser.go(f"{live_server.url}/reviews/{company.review_open.pk}")
    yield browser, company
    browser.close()


def press_key(browser: Browser, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, **text)


def test_attesting_neither_reloads_the_page_nor_loses_what_was_typed(desk: Desk) -> None:
    browser, company = desk
    browser.run("window.stayed = true; document.getElementById('reason').value = 'Half a thought'")
    # A person made the box higher. The content security policy forbids htmx to copy this style.
    browser.run("document.getElementById('reason').style.height = '9rem'")
    browser.run("document.getElementById('attest-oversight').checked = true")
    browser.run("document.getElementById('attest-note').value = 'Named in the answers.'")
    browser.run("document.querySelector('#attest button').scrollIntoView({behavior: 'instant'})")
    before = browser.run("window.scrollY")

    browser.run("document.querySelector('#attest button').click()")

    browser.wait("document.body.textContent.includes('Attested 1 item.')")
    assert browser.run("window.stayed") is True
    assert abs(browser.run("window.scrollY") - before) < 200
    assert browser.run("document.getElementById('reason').value") == "Half a thought"
    item = company.review_open.checklist.get(code="oversight")
    assert (item.state, item.attested_by) == ("satisfied", company.carla)
    assert browser.faults == []


def test_a_refusal_is_shown_in_place(desk: Desk) -> None:
    browser, _ = desk
    browser.run("window.stayed = true; document.getElementById('attest-note').value = 'Read.'")

    browser.run("document.querySelector('#attest button').click()")

    browser.wait("document.body.textContent.includes('No checklist item is selected.')")
    assert browser.run("window.stayed") is True
    assert browser.run("document.getElementById('attest-note').value") == "Read."


def test_keys_attest_approve_and_leave_a_text_box(desk: Desk) -> None:
    browser, company = desk
    company.review_open.checklist.update(state="satisfied")
    company.review_open.checklist.filter(code="oversight").update(
        state="open", attested_by=None, attested_at=None
    )
    browser.run("document.getElementById('item-oversight').tabIndex = -1")
    browser.run("document.getElementById('item-oversight').focus()")
    press_key(browser, "a")
    assert browser.run("document.getElementById('attest-oversight').checked") is True

    browser.run("document.getElementById('reason').focus()")
    press_key(browser, "Escape")
    assert browser.run("document.activeElement.id") != "reason"
    press_key(browser, "a")
    assert browser.run("document.activeElement.id") == "attest-note"


def test_a_comment_box_completes_a_mention_by_keyboard_alone(desk: Desk) -> None:
    browser, company = desk
    box = "document.querySelector('#conversation .card-body > details.anchor textarea')"
    browser.run(f"{box}.closest('details').open = true; {box}.focus()")
    browser.call("Input.insertText", text="Please look, @e")
    browser.wait("document.querySelector('#mention-list [role=option]') !== null")
    assert browser.run(f"{box}.getAttribute('aria-activedescendant')") == "mention-0"
    press_key(browser, "Escape")
    browser.wait("document.getElementById('mention-list') === null")
    # The first Escape closes the list and leaves the text box alone.
    assert browser.run(f"document.activeElement === {box}") is True

    browser.call("Input.insertText", text="nz")
    browser.wait("document.querySelector('#mention-list [role=option]') !== null")
    press_key(browser, "Enter")
    assert browser.run(f"{box}.value") == "Please look, @enzo "
    browser.run(f"{box}.form.querySelector('[value=comment]').click()")
    browser.wait("document.querySelector('.mention') !== null")
    shown = browser.run("document.querySelector('.mention').textContent")
    assert shown == f"@{company.enzo.name}"
    assert browser.faults == []
