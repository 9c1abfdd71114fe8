"""The playground in a real browser, against a real gateway: no key, no fault in the console."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from governance.people.models import RoleAssignment
from tests.live.browser import CHROMIUM, Browser
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.sign_in_support import PASSWORD, with_password

__all__ = ["stage"]

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture
def browser() -> Iterator[Browser]:
    started = Browser()
    yield started
    started.close()


def test_a_person_asks_a_deployment_and_sees_the_answer_without_a_key(
    browser: Browser, stage: Stage
) -> None:
    stage.deployment()
    person = with_password(stage.person)
    RoleAssignment.objects.create(
        person=person, role="developer", department=stage.department("engineering")
    )
    stage.notify()
    browser.go(f"{stage.url}/sign-in")
    browser.fill(email=person.email, password=PASSWORD)
    browser.press("form[action='/sign-in'] button")
    browser.go(f"{stage.url}/playground")
    assert "API key" not in browser.run("document.getElementById('main').textContent")
    browser.run("document.querySelector('#playground button[type=submit]').click()")
    browser.wait("document.querySelector('.turn-assistant')?.textContent === 'Hello there'")
    browser.wait("document.getElementById('facts').textContent.includes('x-assay-release')")
    # A second message goes by the token that the page holds.
    browser.run("document.getElementById('text').value = 'Again'")
    browser.run("document.querySelector('#playground button[type=submit]').click()")
    browser.wait("document.querySelectorAll('.turn-assistant').length === 2")
    browser.wait("document.querySelectorAll('.turn-assistant')[1].textContent === 'Hello there'")
    assert person.playground_tokens.count() == 1
    assert browser.run("Object.keys(localStorage).concat(Object.keys(sessionStorage)).length") <= 1
    assert browser.faults == []
