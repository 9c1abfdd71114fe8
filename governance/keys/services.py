"""Making and revoking credentials. A secret is returned once and kept only as an HMAC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, NotFound, WrongState
from governance.keys.models import ApiKey
from governance.keys.notices import key_notice
from governance.keys.tokens import format_token, mint, secret_hmac
from governance.notify import notify
from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import SNAPSHOT_CHANNEL, authorize
from governance.principals import Principal

MAX_LIFETIME = timedelta(days=366)
TOKEN_LIFETIME = timedelta(days=30)
NAME_MAX = 120


def key_resource(key: ApiKey) -> Resource:
    """A key as the policy sees it: a department's, or a person's own."""
    return Resource(
        type="key",
        id=key.public_id,
        name=key.name,
        department=key.department.slug if key.department else None,
        attributes={"owner": key.person_id},
    )


def key_create(
    *,
    actor: Principal,
    department: Department,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime,
) -> tuple[ApiKey, str]:
    """A department's key for its applications, and the token that is shown this once.

    Raises:
        InvalidInput: an empty name, no or unknown scopes, or a lifetime over 366 days.
        NotFound, NotPermitted: the policy refuses.
    """
    with transaction.atomic():
        decision = authorize(
            actor=actor,
            action=Action.KEY_CREATE,
            resource=Resource("key", department=department.slug),
        )
        if not scopes:
            raise InvalidInput(
                "A department's key needs at least one scope.",
                fields={"scopes": ["Name what the key may do, such as deployment:invoke."]},
            )
        key, token = _mint(
            name=name,
            scopes=scopes,
            expires_at=expires_at,
            department=department,
            created_by_id=actor.person_id,
        )
        _record(actor, "key:create", key, policy_version=decision.policy_version)
    return key, token


def access_token_create(
    *,
    person: Person,
    name: str,
    expires_at: datetime | None = None,
    scopes: Sequence[str] | None = None,
) -> tuple[ApiKey, str]:
    """A person's own token for the command line and notebooks; 30 days unless stated.

    It can do no more than the person, and only `scopes` of that when they are given.

    Raises:
        InvalidInput: an empty name, unknown scopes, or a lifetime over 366 days.
        WrongState: the account is inactive.
    """
    with transaction.atomic():
        person = Person.objects.select_for_update().get(pk=person.pk)
        if not person.is_active:
            raise WrongState(f"The account of {person.name} is inactive; it gets no token.")
        key, token = _mint(
            name=name,
            scopes=scopes or (),
            expires_at=expires_at or timezone.now() + TOKEN_LIFETIME,
            person=person,
            created_by_id=person.pk,
        )
        _record(principal_for_person(person), "key:create", key)
    return key, token


def key_revoke(*, actor: Principal, key_id: int) -> ApiKey:
    """Make a key or token useless, at once and for good.

    Raises:
        NotFound, NotPermitted: there is none, or the policy refuses.
        WrongState: it is revoked already.
    """
    with transaction.atomic():
        # The row of the key alone: its department and owner stay free for others.
        rows = ApiKey.objects.select_for_update(of=("self",)).select_related("department")
        key = rows.filter(pk=key_id).first()
        if key is None:
            raise NotFound(f"There is no key {key_id}.")
        decision = authorize(actor=actor, action=Action.KEY_REVOKE, resource=key_resource(key))
        if key.revoked_at is not None:
            raise WrongState(
                f"Key {key.name} was revoked on {key.revoked_at:%Y-%m-%d}; "
                "it cannot be revoked again."
            )
        key.revoked_at = timezone.now()
        key.save(update_fields=["revoked_at"])
        _record(actor, "key:revoke", key, policy_version=decision.policy_version)
    return key


def _mint(
    *,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime,
    created_by_id: int | None,
    department: Department | None = None,
    person: Person | None = None,
) -> tuple[ApiKey, str]:
    name = name.strip()
    _check(name, scopes, expires_at)
    pepper_version = max(settings.KEY_PEPPERS)
    public_id, secret = mint()
    key = ApiKey.objects.create(
        public_id=public_id,
        secret_hmac=secret_hmac(secret, settings.KEY_PEPPERS[pepper_version]),
        pepper_version=pepper_version,
        name=name,
        department=department,
        person=person,
        scopes=sorted(set(scopes)),
        created_by_id=created_by_id,
        expires_at=expires_at,
    )
    return key, format_token(public_id, secret)


def _check(name: str, scopes: Sequence[str], expires_at: datetime) -> None:
    fields: dict[str, list[str]] = {}
    if not name or len(name) > NAME_MAX or not name.isprintable():
        fields["name"] = [f"A name has 1 to {NAME_MAX} printable characters."]
    known = {action.value for action in Action}
    if unknown := sorted({str(scope)[:60] for scope in scopes} - known):
        fields["scopes"] = [f"No such action: {', '.join(unknown)}."]
    now = timezone.now()
    if timezone.is_naive(expires_at):
        fields["expires_at"] = ["The time needs its zone, such as 2027-01-31T00:00:00Z."]
    elif expires_at <= now:
        fields["expires_at"] = ["The time lies in the past."]
    elif expires_at > now + MAX_LIFETIME:
        fields["expires_at"] = [f"A key lives {MAX_LIFETIME.days} days at most."]
    if fields:
        raise InvalidInput("The key was not made: what was asked for is not valid.", fields=fields)


def _record(actor: Principal, action: str, key: ApiKey, policy_version: int | None = None) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=Subject("key", key.public_id, key.name),
        department=key.department.slug if key.department else "",
        data={"scopes": key.scopes, "expires_at": key.expires_at.isoformat()},
        policy_version=policy_version,
    )
    transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL, key_notice(key.public_id)))
