"""One-time links that a browser has opened, and the passwords set with them.

An opened link stays in the session until it is used. If roles require it, the first second factor
is added together with the password.
"""

from __future__ import annotations

import time

from django.db import transaction
from django.http import HttpRequest

from assay.accounts.factors import app_add, code_check, code_counter
from governance.audit.services import Subject, audit_record
from governance.people.credentials import (
    access_tokens_revoke,
    has_factor,
    is_privileged,
    sign_in_unconfirmed,
)
from governance.people.links import USE, link_claim, recovery_needed
from governance.people.models import LinkPurpose, OneTimeLink, Person
from governance.people.recoveries.opening import sign_in_confirmed
from governance.people.selectors import principal_for_person
from governance.people.sessions import sessions_end
from governance.people.signing_in import password_checked

OPENED = "assay_opened_link"
LIFETIME_S = 30 * 60


def link_remember(request: HttpRequest, link: OneTimeLink) -> None:
    """Keep the link in this session, under a new session key."""
    request.session.cycle_key()
    request.session[OPENED] = {
        "id": link.pk,
        "purpose": str(link.purpose),
        "person": link.person_id,
        "at": int(time.time()),
    }


def link_opened(
    request: HttpRequest, purpose: LinkPurpose, *, person_id: int | None = None
) -> int | None:
    """Return the opened link's ID; None if there is none with this purpose for this person."""
    opened = request.session.get(OPENED) or {}
    if opened.get("purpose") != purpose or time.time() - opened["at"] > LIFETIME_S:
        return None
    if person_id is not None and opened["person"] != person_id:
        return None
    return int(opened["id"])


def link_forget(request: HttpRequest) -> None:
    """Remove the used link from the session."""
    request.session.pop(OPENED, None)


def needs_first_factor(person: Person) -> bool:
    """Return true if the link's page must add an authenticator app together with the password."""
    return is_privileged(person) and not has_factor(person.pk)


def password_set(
    *, link_id: int | None, password: str, secret: str = "", code: str = ""
) -> tuple[OneTimeLink, list[str]]:
    """Set a person's password with an opened link; returns their recovery codes if they are new.

    If the account has a second factor, `code` must be from it, since the creator of the link does
    not have it. If roles require a factor and the account has none, `secret` and `code` are from
    the app to add. The person's sessions end and their access tokens are revoked, because someone
    who knew the old password may have created them.

    Raises:
        NotFound: the link was used, replaced or expired (code `link_not_valid`).
        NotPermitted: one administrator made the link, and the account now needs a recovery.
        InvalidInput, NotAuthenticated: the password is too weak, or the code is wrong; the link
            stays usable.
        QuotaExceeded, Unavailable: as `code_check`.
    """
    with transaction.atomic():
        link = link_claim(link_id=link_id, purpose=LinkPurpose.PASSWORD)
        person = link.person
        password_checked(password, person, field="password")
        actor = principal_for_person(person)
        codes: list[str] = []
        secured, added = has_factor(person.pk), needs_first_factor(person)
        if added and link.recovery_id is None:
            raise recovery_needed(person, "a link that adds its first second factor")
        if secured:
            code_check(person=person, code=code)
        elif added:
            codes = app_add(person, secret, code_counter(secret, code))
        if link.recovery_id is not None:
            sign_in_confirmed(person)
        elif not secured and link.created_by_id is not None:
            sign_in_unconfirmed(person, at=link.used_at)
        person.set_password(password)
        person.save(update_fields=["password"])
        audit_record(
            actor=actor,
            action=USE,
            subject=Subject("person", str(person.pk), person.name),
            data={
                "link": link.public_id,
                "factor": "totp" if added else "",
                "sessions_ended": sessions_end(person_id=person.pk),
                "tokens_revoked": access_tokens_revoke(
                    actor=actor, person=person, reason="The password was set by a one-time link."
                ),
            },
        )
    return link, codes
