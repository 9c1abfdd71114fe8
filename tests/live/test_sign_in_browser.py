"""Passkeys in a real browser: our script, its WebAuthn, and the content security policy at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.sessions.models import Session

from governance.people.models import Person
from governance.people.recoveries.approving import recovery_approve
from governance.people.recoveries.services import recovery_request
from tests.live.browser import CHROMIUM, Browser
from tests.proofs import proven
from tests.unit.assay.sign_in_support import PASSWORD, code_of, recovery_address, with_password

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture
def browser() -> Iterator[Browser]:
    started = Browser()
    yield started
    started.close()


def test_a_passkey_is_added_and_signs_in_alone_and_after_a_password(
    browser: Browser,
    live_server: Any,
    policy: object,
    redis: object,
    person: Callable[..., Person],
) -> None:
    ada = with_password(person("Ada", "admin"))
    root = live_server.url.replace("127.0.0.1", "localhost")
    browser.with_passkey_device()

    browser.go(f"{root}/account")
    browser.fill(email=ada.email, password=PASSWORD)
    browser.press("form[action='/sign-in'] button")
    assert browser.path == "/account"

    # A first factor of an administrator needs a recovery's link, which posts itself.
    link = recovery_address(ada)
    browser.go(f"{root}/{link.split('/', 3)[3]}")
    browser.wait("location.pathname === '/account/authenticator'")
    browser.go(f"{root}/account")
    browser.fill(name="work laptop")
    browser.press("form[data-passkey=create] button")
    assert browser.heading == "Recovery codes"

    browser.go(f"{root}/account/authenticator")
    secret = browser.run("document.getElementById('secret').textContent").replace(" ", "")
    browser.fill(code=code_of(secret))
    browser.press("form[action='/account/authenticator'] button")
    assert browser.path == "/account"

    browser.press("form[action='/sign-out'] button")
    browser.press("form[data-passkey=get] button")
    assert browser.path == "/"

    browser.press("form[action='/sign-out'] button")
    browser.fill(email=ada.email, password=PASSWORD)
    browser.press("form[action='/sign-in'] button")
    assert browser.path == "/sign-in/second-factor"
    browser.press("form[data-passkey=get] button")
    assert browser.path == "/"
    assert browser.faults == []


def test_a_recovery_takes_the_link_and_the_code_and_a_form_survives_a_passkey(
    browser: Browser,
    live_server: Any,
    policy: object,
    redis: object,
    person: Callable[..., Person],
) -> None:
    ada, bea, cleo = (person(name, "admin") for name in ("Ada", "Bea", "Cleo"))
    recovery, code = recovery_request(
        actor=proven(ada), person_id=cleo.pk, purpose="password", reason="New here."
    )
    _, link = recovery_approve(actor=proven(bea), recovery_id=recovery.pk)
    root = live_server.url.replace("127.0.0.1", "localhost")
    browser.with_passkey_device()

    # The script posts the link; the page keeps it, and asks for the code.
    browser.go(f"{root}/{link.split('/', 3)[3]}")
    browser.wait("document.getElementById('id_code') !== null")
    browser.fill(code=code)
    browser.press("form[action='/sign-in/link'] button")
    assert browser.path == "/sign-in/link/password"
    secret = browser.run("document.getElementById('secret').textContent").replace(" ", "")
    browser.fill(password=PASSWORD, again=PASSWORD, code=code_of(secret))
    browser.press("form[action='/sign-in/link/password'] button")
    assert browser.heading == "Your password is set"

    browser.go(f"{root}/sign-in")
    browser.fill(email=cleo.email, password=PASSWORD)
    browser.press("form[action='/sign-in'] button")
    browser.fill(code=code_of(secret, step=1))
    browser.press("main form button")
    browser.go(f"{root}/account")
    browser.fill(name="laptop")
    browser.press("form[data-passkey=create] button")
    # The proof of the sign-in is an hour old.
    session = Session.objects.get()
    data = session.get_decoded()
    for record in data["account_authentication_methods"]:
        record["at"] -= 3600
    session.session_data = Session.objects.encode(data)
    session.save()

    browser.go(f"{root}/people")
    browser.fill(email="new@example.org", name="Neo “N” & Co")
    browser.press("button[name=without_password]")
    assert browser.heading == "Verify your identity"
    browser.press("form[data-passkey=get] button")
    made = Person.objects.get(email="new@example.org")
    assert made.name == "Neo “N” & Co"
    # The button that was pressed is kept, too.
    assert browser.path == f"/people/{made.pk}"
    # The two pages that ask for more are answers to what was refused.
    assert all(each.startswith("Failed to load resource") for each in browser.faults)
    assert len(browser.faults) == 2


def test_a_device_that_declines_is_told_in_words_and_nothing_is_sent(
    browser: Browser, live_server: Any, policy: object, redis: object
) -> None:
    root = live_server.url.replace("127.0.0.1", "localhost")
    browser.with_passkey_device()
    browser.go(f"{root}/sign-in")

    browser.run("document.querySelector('form[data-passkey=get] button').click()")

    browser.wait("!document.querySelector('[data-passkey-said]').hidden")
    said = browser.run("document.querySelector('[data-passkey-said]').textContent")
    assert "nothing was sent" in said
    assert browser.run("document.querySelector('form[data-passkey=get] button').disabled") is False
    assert browser.path == "/sign-in"
