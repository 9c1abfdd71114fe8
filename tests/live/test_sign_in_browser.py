"""Passkeys in a real browser: our script, its WebAuthn, and the content security policy at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from governance.people.links import BOOTSTRAP, factor_permit_create
from governance.people.models import Person
from tests.live.browser import CHROMIUM, Browser
from tests.unit.assay.sign_in_support import PASSWORD, code_of, with_password

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

    # A first factor of an administrator needs a one-time link, which posts itself.
    _, link = factor_permit_create(actor=BOOTSTRAP, person_id=ada.pk)
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
