"""One administrator becomes no other person who decides: not with all that one password and one
authenticator app reach in the portal.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.test import Client

from assay.accounts import crypto
from governance.people.models import OneTimeLink, Person
from tests.proofs import signed_in
from tests.unit.assay.sign_in_support import Visitor, code_of, give_totp

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]
NEW = "another horse and another battery"


def shown_link(page: str) -> str:
    """Return the one-time link on a page; empty when it shows none."""
    found = re.search(r"http[^<\"]+/sign-in/link#\w+", page)
    return found[0] if found else ""


@pytest.mark.parametrize("role", ["admin", "reviewer:security", "operator", "auditor"])
def test_resetting_factors_and_opening_ones_own_link(
    person: Callable[..., Person], role: str
) -> None:
    ada, bea = person("Ada", "admin"), person("Bea", role)
    give_totp(bea)
    bea.refresh_from_db()
    before = bea.empowered_at
    mallory = signed_in(Client(), ada)
    mallory.post(f"/people/{bea.pk}/factors/reset", {"reason": "They lost their phone."})
    page = mallory.post(f"/people/{bea.pk}/link", {"purpose": "password"}).content.decode()
    link = shown_link(page)
    visitor = Visitor()
    visitor.post("/sign-in/link", link=link)
    visitor.get("/sign-in/link/password")
    if sealed := visitor.client.session.get("assay_totp_secret"):
        secret = crypto.decrypt(sealed)
        visitor.post("/sign-in/link/password", password=NEW, again=NEW, code=code_of(secret))
    bea.refresh_from_db()
    assert not bea.check_password(NEW)
    assert not OneTimeLink.objects.filter(person=bea, used_at__isnull=False, created_by=ada)
    assert bea.empowered_at == before
    assert Visitor().password(bea, NEW).status_code == 401
