"""Somebody at the sign-in page, for tests."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.db import transaction
from django.test import Client
from django.utils import timezone

from assay.accounts import crypto
from assay.accounts.factors import app_add, new_secret
from governance.people.credentials import has_factor, is_privileged
from governance.people.links import BOOTSTRAP, link_make
from governance.people.models import LinkPurpose, OneTimeLink, Person
from governance.people.recoveries.models import AccountRecovery
from governance.people.recoveries.opening import one_time_link_open
from tests.proofs import signed_in
from tests.unit.assay.soft_passkey import SoftPasskey

PASSWORD = "correct horse battery staple"
HTTPS: dict[str, Any] = {"secure": True}
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"


def with_password(person: Person) -> Person:
    person.set_password(PASSWORD)
    person.save()
    return person


class Visitor:
    """A browser, over HTTPS."""

    def __init__(self, address: str = "192.0.2.7", agent: str = FIREFOX) -> None:
        self.client = Client(REMOTE_ADDR=address, headers={"user-agent": agent})

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(path, query_params=query or None, **HTTPS)

    def post(self, path: str, **fields: Any) -> Any:
        return self.client.post(path, fields, **HTTPS)

    def password(self, person: Person, password: str = PASSWORD, **more: Any) -> Any:
        return self.post("/sign-in", email=person.email, password=password, **more)

    def is_in(self) -> bool:
        return bool(self.get("/models").status_code == 200)

    def sign_in(self, person: Person) -> Visitor:
        assert self.password(person).status_code == 302
        assert self.is_in()
        return self

    def proven(self, person: Person) -> Visitor:
        """Signed in with a second factor that was given just now."""
        signed_in(self.client, person)
        return self


def totp_now(person: Person, *, step: int = 0) -> str:
    """Return the code of the person's authenticator app, `step` half minutes from now."""
    row = Authenticator.objects.get(user=person, type=Authenticator.Type.TOTP)
    secret = crypto.decrypt(row.data["secret"])
    return code_of(secret, step=step)


def code_of(secret: str, *, step: int = 0) -> str:
    text: str = format_hotp_value(hotp_value(secret, int(time.time()) // 30 + step))
    return text


def recovery_address(person: Person, purpose: str = LinkPurpose.FACTOR) -> str:
    """Return the address of the link of a recovery that the server approved, without a code."""
    now = timezone.now()
    recovery = AccountRecovery.objects.create(
        person=person, purpose=purpose, reason="A test.", state="approved", on_server=True,
        pepper_version=1, expires_at=now + timedelta(days=1), approved_at=now, effective_at=now,
    )  # fmt: skip
    with transaction.atomic():
        return link_make(
            actor=BOOTSTRAP,
            person=person,
            purpose=LinkPurpose(purpose),
            action="person:reset_password",
            decision=None,
            recovery=recovery,
        )[1]


def factor_link(person: Person) -> OneTimeLink:
    """An opened one-time link with which the person adds a first second factor."""
    return one_time_link_open(text=recovery_address(person))


def give_totp(person: Person) -> str:
    """Puts an app on the account; returns its secret. The present code has been used by then."""
    secret = new_secret()
    with transaction.atomic():
        # The code of the step before: those of this step and the next stay usable.
        app_add(person, secret, int(time.time()) // 30 - 1)
    return secret


def open_factor_link(visitor: Visitor, person: Person) -> Visitor:
    """A signed-in visitor without a second factor opens a recovery's link."""
    answer = visitor.post("/sign-in/link", link=recovery_address(person))
    assert answer["Location"] == "/account/authenticator"
    return visitor


def prove(visitor: Visitor, person: Person) -> Visitor:
    """A signed-in visitor gives the code that the person's app shows now."""
    answer = visitor.post("/account/prove", code=totp_now(person))
    assert answer.status_code == 302, answer.content
    return visitor


def give_passkey(visitor: Visitor, name: str = "laptop") -> SoftPasskey:
    """A signed-in visitor adds a passkey."""
    key = SoftPasskey()
    person = Person.objects.get(pk=visitor.client.session["_auth_user_id"])
    if is_privileged(person) and not has_factor(person.pk):
        open_factor_link(visitor, person)
    options = visitor.get("/account/passkeys/options").json()
    answer = visitor.post("/account/passkeys", name=name, credential=key.create(options))
    assert answer.status_code in {200, 302}, answer.content[:2000]
    return key
