"""The playground, opened by a developer in a browser."""

from __future__ import annotations

from governance.people.models import Person, RoleAssignment
from tests.live.browser import Browser
from tests.unit.assay.gateway_support import Stage
from tests.unit.assay.sign_in_support import PASSWORD, with_password


def open_playground(browser: Browser, stage: Stage) -> Person:
    """Sign in as a developer of engineering, open the playground, and return the developer."""
    person = with_password(stage.person)
    RoleAssignment.objects.create(
        person=person, role="developer", department=stage.department("engineering")
    )
    stage.notify()
    browser.go(f"{stage.url}/sign-in")
    browser.fill(email=person.email, password=PASSWORD)
    browser.press("form[action='/sign-in'] button")
    browser.go(f"{stage.url}/playground")
    return person
