"""Erase a person's personal data and keep the record of their actions.

Erasure destroys the key under which the audit log encrypts the person's data: the data becomes
unreadable, and every hash stays valid. Their record stays as "Erased person 17", because work and
decisions refer to it. It cannot be undone: the next owner of the address is a new person.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from governance.audit.exports.models import AuditExport
from governance.audit.models import AuditPersonKey
from governance.audit.search.models import AuditFilter
from governance.audit.services import audit_record
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.keys.models import ApiKey
from governance.looks.models import Look
from governance.notify import notify
from governance.people.models import REASON_MAX, AccessRequest, OneTimeLink, Person
from governance.people.proof import proof_facts
from governance.people.recoveries.models import AccountNotice, AccountRecovery
from governance.people.roles import person_subject, record_role
from governance.people.selectors import person_resource
from governance.people.sessions import sessions_end
from governance.permissions import Action
from governance.policy.services import SNAPSHOT_CHANNEL, authorize_binding
from governance.principals import Principal
from governance.reviews.threads.models import CommentDraft
from governance.rowsecurity import lifted

# Shortest part of a name to look for; shorter ones occur in other words.
_TELLING = 3
# Parameters of a search in the log that may contain a person's name.
_TYPED = ("query", "subject", "who")
_WORD = re.compile(r"\w+")

# Functions of other contexts that erase a person's texts. Each returns counts.
_FOLLOWERS: list[Callable[[Person], dict[str, int]]] = []


def follow_erasure(forget: Callable[[Person], dict[str, int]]) -> None:
    """Register `forget` to be called in the transaction that erases a person."""
    if forget not in _FOLLOWERS:
        _FOLLOWERS.append(forget)


def erased_name(person_id: int) -> str:
    """Return the name shown for an erased person."""
    return f"Erased person {person_id}"


def person_erase(*, actor: Principal, person_id: int, reason: str) -> Person:
    """Erase a person whose access has ended. It cannot be undone.

    `reason` stays in the audit log as plain text for good, so it must not name the person.

    Raises:
        InvalidInput: no reason, one over its bound, or one that names the person.
        NotFound, NotPermitted: the person does not exist or is the actor, the policy denies it, or
            the actor has no fresh second factor.
        WrongState: the account is active, or erased already.
    """
    with transaction.atomic():
        person = Person.objects.select_for_update(no_key=True).filter(pk=person_id).first()
        if person is None:
            raise NotFound("There is no such person.")
        decision = authorize_binding(
            actor=actor,
            action=Action.PERSON_ERASE,
            resource=person_resource(person),
            doing=f"erasing person {person.pk}",
        )
        if actor.person_id == person.pk:
            raise NotPermitted(
                f"{person.name} may not erase themselves.", hint="Another administrator can."
            )
        if person.erased_at is not None:
            raise WrongState(f"{person.name} cannot be erased again.")
        if person.is_active:
            raise WrongState(
                f"The account of {person.name} is active; only people without access can be "
                "erased.",
                hint="Deactivate the account first.",
            )
        reason = _checked_reason(reason, person)
        counts = _credentials_end(person)
        with lifted():
            _texts_forget(person)
            for forget in _FOLLOWERS:
                counts |= forget(person)
        _record_forget(person)
        # From here on, events name the person by number only.
        AuditPersonKey.objects.filter(person=person).update(key=None, erased_at=person.erased_at)
        audit_record(
            actor=actor,
            action=Action.PERSON_ERASE,
            subject=person_subject(person),
            reason=reason,
            data={**counts, **proof_facts(actor.proof)},
            decision=decision,
        )
        roles = person.role_assignments.select_related("person", "department")
        for assignment in roles:
            record_role(actor, "role:revoke", assignment, decision)
        roles.all().delete()
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return person


def _checked_reason(reason: str, person: Person) -> str:
    reason = reason.strip()
    if not reason or len(reason) > REASON_MAX or not reason.isprintable():
        raise InvalidInput(
            f"A reason has 1 to {REASON_MAX} printable characters.",
            fields={"reason": ["is empty, too long or not printable"]},
        )
    words = set(_WORD.findall(reason.casefold()))
    if _names(reason, _identifiers(person)) or words & _name_words(person):
        raise InvalidInput(
            "The reason names the person; it would stand in the audit log for good.",
            hint="Say why without their name or address: “Requested on 3 May.”",
            fields={"reason": ["must not name the person"]},
        )
    return reason


def _name_words(person: Person) -> set[str]:
    names = f"{person.name} {person.given_name} {person.family_name}".casefold()
    return {word for word in _WORD.findall(names) if len(word) >= _TELLING}


def _credentials_end(person: Person) -> dict[str, Any]:
    """Delete everything that the person signed in with; return the counts."""
    for session in Session.objects.iterator():
        # A session of an unfinished sign-in has no row of its own.
        if _is_of(session.get_decoded(), person):
            session.delete()
    AccountNotice.objects.filter(Q(person=person) | Q(about=person)).delete()
    return {
        "sessions": sessions_end(person_id=person.pk),
        "factors": Authenticator.objects.filter(user=person).delete()[0],
        "links": SocialAccount.objects.filter(user=person).delete()[0],
        "recoveries": AccountRecovery.objects.filter(person=person).delete()[0],
        "one_time_links": OneTimeLink.objects.filter(person=person).delete()[0],
        "access_requests": AccessRequest.objects.filter(person=person).delete()[0],
        "addresses": EmailAddress.objects.filter(user=person).delete()[0],
    }


def _is_of(data: dict[str, Any], person: Person) -> bool:
    return data.get("_auth_user_id") == str(person.pk) or person.email in str(data)


def _texts_forget(person: Person) -> None:
    """Delete the person's private texts, and the addresses that their requests came from."""
    ApiKey.objects.filter(person=person).update(
        name="token of an erased person", purpose="", networks=[], revoked_reason=""
    )
    AuditFilter.objects.filter(person=person).delete()
    CommentDraft.objects.filter(person=person).delete()
    Look.objects.filter(person=person).delete()
    AuditExport.objects.filter(person=person).update(address="", filters={})
    _searches_forget(person)


def _searches_forget(person: Person) -> None:
    """Replace the person's name in saved filters and exports of others by their number, as in the
    audit log."""
    searches = AuditFilter.objects.filter(parameters__has_any_keys=_TYPED)
    for search in searches.select_for_update(of=("self",)):
        if (changed := _without(search.parameters, person)) != search.parameters:
            AuditFilter.objects.filter(pk=search.pk).update(parameters=changed)
    exports = AuditExport.objects.filter(filters__has_any_keys=_TYPED)
    for export in exports.select_for_update(of=("self",)):
        if (changed := _without(export.filters, person)) != export.filters:
            AuditExport.objects.filter(pk=export.pk).update(filters=changed)


def _without(search: dict[str, Any], person: Person) -> dict[str, Any]:
    number = erased_name(person.pk).lower()
    return {
        name: number if name in _TYPED and _finds(name, str(value), person) else value
        for name, value in search.items()
    }


def _finds(name: str, typed: str, person: Person) -> bool:
    """Return whether the search names the person. In `who`, a part of the name is enough."""
    if _names(typed, (*_identifiers(person), person.name)):
        return True
    return name == "who" and bool(set(_WORD.findall(typed.casefold())) & _name_words(person))


def _identifiers(person: Person) -> tuple[str, ...]:
    return person.email, person.user_name, person.external_id


def _names(text: str, names: tuple[str, ...]) -> bool:
    return any(name and name.casefold() in text.casefold() for name in names)


def _record_forget(person: Person) -> None:
    person.directory_groups.clear()
    person.name = erased_name(person.pk)
    person.email = f"erased-{person.pk}@invalid"
    person.given_name = person.family_name = ""
    person.user_name = person.external_id = ""
    person.deactivation_reason = ""
    person.set_unusable_password()
    person.last_login = None
    person.session_epoch += 1
    # The identity provider no longer sees them, and creates a new person for the same address.
    person.deprovisioned_at = person.deprovisioned_at or timezone.now()
    person.erased_at = timezone.now()
    person.save()
