"""Credentials of accounts: accounts that two parties set up, and the administrators who did."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.keys.models import ApiKey
from governance.notify import notify
from governance.people.models import PLATFORM_ROLES, OneTimeLink, Person
from governance.people.sessions import sessions_end
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import SNAPSHOT_CHANNEL
from governance.principals import Principal
from governance.rowsecurity import lifted

STRONG = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def privileged_roles() -> frozenset[str]:
    """Return the roles whose accounts are set up and recovered by two parties.

    These are the platform-wide roles and those in `ASSAY_SECOND_FACTOR_ROLES`: they decide for
    others or see every department, so taking such an account over gives one person two votes.
    """
    return frozenset({*map(str, PLATFORM_ROLES), *settings.SECOND_FACTOR_ROLES})


def is_privileged(person: Person) -> bool:
    """Return whether the person holds one of `privileged_roles`."""
    return person.role_assignments.filter(role__in=privileged_roles()).exists()


def has_factor(person_id: int) -> bool:
    """Return whether the account has an authenticator app or a passkey."""
    return bool(Authenticator.objects.filter(user_id=person_id, type__in=STRONG).exists())


def sign_in_unconfirmed(person: Person, at: datetime | None = None) -> None:
    """Mark an account whose sign-in one party alone set up; the caller audits the change."""
    if person.unconfirmed_at is None:
        person.unconfirmed_at = at or timezone.now()
        person.save(update_fields=["unconfirmed_at"])


def end_access_without_second_factor(*, actor: Principal, person: Person, role: str) -> None:
    """End the sessions and tokens of a person who gets a role that requires a second factor and
    has none: those of a leaked password must not gain the role. The person's row is locked.
    """
    if role not in settings.SECOND_FACTOR_ROLES or has_factor(person.pk):
        return
    reason = f"The role {role} requires a second factor, and the account has none."
    sessions_end(person_id=person.pk)
    access_tokens_revoke(actor=actor, person=person, reason=reason)


def sign_in_admins_of(people: Iterable[int]) -> set[int]:
    """Return the administrators who, alone, set up the sign-in of any of these people.

    Such an administrator could act as the account, so they must not decide on its work: one person
    would be both author and reviewer.
    """
    accounts, makers = set(people), set[int]()
    while True:
        links = OneTimeLink.objects.filter(
            person__in=accounts | makers,
            recovery=None,
            created_by__isnull=False,
            used_at__gte=F("person__unconfirmed_at"),
        )
        new = set(links.values_list("created_by_id", flat=True)) - makers
        if not new:
            return makers
        makers |= new


def with_sign_in_admins(people: Iterable[int]) -> set[int]:
    """Return these people and their `sign_in_admins_of`: none may decide on these people's work."""
    ids = set(people)
    return ids | sign_in_admins_of(ids)


def access_tokens_revoke(
    *, actor: Principal, person: Person, reason: str, decision: Authorization | None = None
) -> int:
    """Revoke every live access token of a person; returns the number revoked."""
    rows = ApiKey.objects.filter(person=person, revoked_at=None, expires_at__gt=timezone.now())
    # Row security hides another person's tokens from the actor; they must end too.
    with lifted():
        keys = list(rows.select_for_update(of=("self",)).order_by("pk"))
        ApiKey.objects.filter(pk__in=[key.pk for key in keys]).update(revoked_at=timezone.now())
    for key in keys:
        audit_record(
            actor=actor,
            action=Action.KEY_REVOKE,
            subject=Subject("key", key.public_id, key.name, person=person.pk),
            reason=reason,
            decision=decision,
        )
    transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return len(keys)
