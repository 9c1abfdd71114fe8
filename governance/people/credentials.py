"""Credentials of accounts: which accounts need two parties to set them up, and who did."""

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

    Platform-wide roles, and those that `ASSAY_SECOND_FACTOR_ROLES` names: they decide for others or
    see every department, so that taking such an account over would give one person two votes.
    """
    return frozenset({*map(str, PLATFORM_ROLES), *settings.SECOND_FACTOR_ROLES})


def is_privileged(person: Person) -> bool:
    """Return whether the person holds one of `privileged_roles`."""
    return person.role_assignments.filter(role__in=privileged_roles()).exists()


def has_factor(person_id: int) -> bool:
    """Return whether the account has an authenticator app or a passkey."""
    return bool(Authenticator.objects.filter(user_id=person_id, type__in=STRONG).exists())


def sign_in_unconfirmed(person: Person, at: datetime | None = None) -> None:
    """Note that one party alone has set up how the account signs in; the caller audits how."""
    if person.unconfirmed_at is None:
        person.unconfirmed_at = at or timezone.now()
        person.save(update_fields=["unconfirmed_at"])


def second_factor_begins(*, actor: Principal, person: Person, role: str) -> None:
    """End what a person without a second factor had opened before they got a role that requires
    one: a session or token of a leaked password must not outlive it. Their row is locked.
    """
    if role not in settings.SECOND_FACTOR_ROLES or has_factor(person.pk):
        return
    reason = f"The role {role} requires a second factor, and the account has none."
    sessions_end(person_id=person.pk)
    access_tokens_revoke(actor=actor, person=person, reason=reason)


def makers_of(people: Iterable[int]) -> set[int]:
    """Return the administrators who alone set up how any of these people sign in.

    Each of them could act as the account. Whoever could must not decide on its work: else one
    person would be both author and reviewer.
    """
    known, makers = set(people), set[int]()
    while True:
        links = OneTimeLink.objects.filter(
            person__in=known | makers,
            recovery=None,
            created_by__isnull=False,
            used_at__gte=F("person__unconfirmed_at"),
        )
        found = set(links.values_list("created_by_id", flat=True)) - makers
        if not found:
            return makers
        makers |= found


def with_makers(people: Iterable[int]) -> set[int]:
    """Return these people and their `makers_of`: none of them decides on what these have made."""
    known = set(people)
    return known | makers_of(known)


def access_tokens_revoke(
    *, actor: Principal, person: Person, reason: str, decision: Authorization | None = None
) -> int:
    """Revoke every access token of theirs that is alive; returns how many there were."""
    alive = ApiKey.objects.filter(person=person, revoked_at=None, expires_at__gt=timezone.now())
    # Row security hides another person's tokens from the actor; they end all the same.
    with lifted():
        keys = list(alive.select_for_update(of=("self",)).order_by("pk"))
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
