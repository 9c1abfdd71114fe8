"""Creation, rotation and revocation of keys. A secret is returned once and stored as an HMAC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, NotFound, WrongState
from governance.keys.checks import (
    MAX_OVERLAP,
    TOKEN_MAX_LIFETIME,
    KeyProperties,
    check,
    lifetime_days,
)
from governance.keys.models import ApiKey
from governance.keys.notices import key_notice
from governance.keys.tokens import format_token, mint, secret_hmac
from governance.notify import notify
from governance.people.models import Department, Person
from governance.people.proof import proof_facts
from governance.people.selectors import principal_for_person
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource
from governance.policy.services import SNAPSHOT_CHANNEL, authorize, authorize_binding
from governance.principals import Principal, Proof

TOKEN_LIFETIME = timedelta(days=30)
OVERLAP = timedelta(hours=24)
# The scopes of a usual application. A key with others needs a fresh second factor of its creator.
NARROW_SCOPES = frozenset({Action.DEPLOYMENT_INVOKE.value, Action.DEPLOYMENT_VIEW.value})
_BINDING = frozenset({"key:create", "key:rotate", "key:update"})
# Access tokens of one person that are neither revoked nor expired.
TOKENS_MAX = 50


def key_resource(key: ApiKey) -> Resource:
    """Return a key as a resource for the policy: a department's, or a person's own (`owner`);
    `responsible` is the person who is responsible for it.
    """
    return Resource(
        type="key",
        id=key.public_id,
        name=key.name,
        department=key.department.slug if key.department else None,
        attributes={"owner": key.person_id, "responsible": key.owner_id},
    )


def key_create(
    *,
    actor: Principal,
    department: Department,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime,
    owner: Person | None = None,
    purpose: str = "",
    allowed_deployments: Sequence[str] = (),
    networks: Sequence[str] = (),
) -> tuple[ApiKey, str]:
    """Create a department's key for its applications; return it with its token, shown only once.

    `owner` is responsible for it, by default the actor. `allowed_deployments` (names) and
    `networks` (CIDRs) restrict it; empty means any.

    Raises:
        InvalidInput: a field is empty, unknown or out of bounds; `fields` names it.
        NotFound, NotPermitted: as `authorize_for_scopes`; the policy may also limit the lifetime.
    """
    properties = KeyProperties(
        name, scopes, expires_at, purpose, allowed_deployments, networks
    ).tidy()
    with transaction.atomic():
        decision = authorize_for_scopes(
            actor=actor,
            action=Action.KEY_CREATE,
            resource=Resource("key", department=department.slug),
            doing="creating a key",
            scopes=scopes,
            expires_at=expires_at,
        )
        if not scopes:
            raise InvalidInput(
                "A department's key needs at least one scope.",
                fields={"scopes": ["Name the permitted actions, such as deployment:invoke."]},
            )
        check(properties)
        owner_id = actor.person_id if owner is None else owner.pk
        check_owner(owner, department, actor)
        key, token = _mint(
            properties, department=department, created_by_id=actor.person_id, owner_id=owner_id
        )
        key_record(actor, "key:create", key, decision=decision)
    return key, token


def access_token_create(
    *,
    person: Person,
    name: str,
    expires_at: datetime | None = None,
    scopes: Sequence[str] | None = None,
    proof: Proof | None = None,
) -> tuple[ApiKey, str]:
    """Create a person's token for the command line and notebooks; it lasts 30 days by default.

    It can do no more than the person, and with `scopes` only these actions. `proof` is the second
    factor of this request.

    Raises:
        InvalidInput: an empty name, unknown scopes, or a lifetime over 366 days.
        WrongState: the account is inactive, or already has `TOKENS_MAX` tokens.
    """
    properties = KeyProperties(
        name, scopes or (), expires_at or timezone.now() + TOKEN_LIFETIME
    ).tidy()
    with transaction.atomic():
        person = Person.objects.select_for_update().get(pk=person.pk)
        if not person.is_active:
            raise WrongState("The account is inactive; it cannot get a token.")
        check(properties, longest=TOKEN_MAX_LIFETIME)
        _require_room(person)
        key, token = _mint(
            properties,
            person=person,
            created_by_id=person.pk,
            owner_id=person.pk,
            proof_method=proof.method if proof else "",
            proved_at=proof.at if proof else None,
        )
        key_record(principal_for_person(person), "key:create", key)
    return key, token


def _require_room(person: Person) -> None:
    """Raise WrongState if the person, whose row is locked, has `TOKENS_MAX` live tokens."""
    live = ApiKey.objects.filter(
        person=person, revoked_at__isnull=True, expires_at__gt=timezone.now()
    ).count()
    if live >= TOKENS_MAX:
        raise WrongState(
            f"{person} has {live} access tokens, the maximum for a person.",
            code="too_many_tokens",
            hint="Revoke one that you no longer use, then create a new one.",
        )


def key_rotate(
    *,
    actor: Principal,
    key_id: int,
    overlap: timedelta = OVERLAP,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Create a successor with a new secret; return it with its token, which is shown only once.

    The old key works until `overlap` (0 to 30 days) has passed, or until its own expiry if that is
    earlier; without overlap it is revoked at once. Both share the limits of their root. By default,
    the successor has the lifetime for which the old key was created.

    Raises:
        NotFound, NotPermitted: it does not exist, or as for `key_create`.
        WrongState: it is revoked, expired, already rotated, or a personal token.
        InvalidInput: the overlap or the expiry is out of bounds.
    """
    now = timezone.now()
    with transaction.atomic():
        old = key_locked(key_id)
        end = expires_at or now + (old.expires_at - old.created_at)
        decision = authorize_for_scopes(
            actor=actor,
            action=Action.KEY_ROTATE,
            resource=key_resource(old),
            doing=f"rotating key {old.name}",
            scopes=old.scopes,
            expires_at=end,
        )
        _refuse_rotation(old, overlap)
        properties = KeyProperties(
            old.name, old.scopes, end, old.purpose, old.allowed_deployments, old.networks
        )
        check(properties, refused="The key was not rotated")
        new, token = _mint(
            properties,
            department=old.department,
            created_by_id=actor.person_id,
            owner_id=old.owner_id,
            rotated_from=old,
            root_id=old.root_id or old.pk,
        )
        if overlap > timedelta(0):
            old.expires_at = min(old.expires_at, now + overlap)
        else:
            old.revoked_at, old.revoked_reason = now, "Rotated without overlap"
        old.save(update_fields=["expires_at", "revoked_at", "revoked_reason"])
        key_record(actor, "key:rotate", old, decision=decision, successor=new.public_id)
        key_record(actor, "key:create", new, decision=decision, rotated_from=old.public_id)
    return new, token


def key_revoke(*, actor: Principal, key_id: int, reason: str = "") -> ApiKey:
    """Revoke a key or token, at once and permanently.

    Raises:
        NotFound, NotPermitted: it does not exist, or the policy denies it.
        WrongState: it is already revoked.
    """
    with transaction.atomic():
        key = key_locked(key_id)
        decision = authorize(actor=actor, action=Action.KEY_REVOKE, resource=key_resource(key))
        if key.revoked_at is not None:
            raise WrongState(
                f"Key {key.name} was revoked on {key.revoked_at:%Y-%m-%d}; "
                "it cannot be revoked again."
            )
        revoke_locked(actor, key, reason=reason, decision=decision)
    return key


def revoke_locked(
    actor: Principal, key: ApiKey, *, reason: str = "", decision: Authorization | None = None
) -> None:
    """Revoke a locked key, audit it, and notify the gateways on commit. The caller authorizes."""
    reason = "".join(c for c in reason if c.isprintable()).strip()[:200]
    key.revoked_at, key.revoked_reason = timezone.now(), reason
    key.save(update_fields=["revoked_at", "revoked_reason"])
    key_record(actor, "key:revoke", key, reason=reason, decision=decision)


def key_locked(key_id: int) -> ApiKey:
    """Return the key, locked until the transaction ends. Raise NotFound if it does not exist."""
    # Lock only the key's row, not its department and owner.
    rows = ApiKey.objects.select_for_update(of=("self",)).select_related("department")
    key = rows.filter(pk=key_id).first()
    if key is None:
        raise NotFound("There is no such key.")
    return key


def _refuse_rotation(key: ApiKey, overlap: timedelta) -> None:
    if key.department is None:
        raise WrongState(
            f"{key.name} is a personal access token; it cannot be rotated.",
            hint="Its owner can create a new one and revoke this one.",
        )
    if key.revoked_at is not None:
        raise WrongState(f"Key {key.name} is revoked; it cannot be rotated. Create a new one.")
    if key.expires_at <= timezone.now():
        raise WrongState(f"Key {key.name} is expired; it cannot be rotated. Create a new one.")
    successor = ApiKey.objects.filter(rotated_from=key).values_list("public_id", flat=True).first()
    if successor is not None:
        raise WrongState(
            f"Key {key.name} ({key.public_id}) has been rotated already.",
            hint=f"Rotate its successor {successor} instead.",
        )
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise InvalidInput(
            "The key was not rotated: the overlap is out of bounds.",
            fields={"overlap_hours": [f"Between 0 and {MAX_OVERLAP.days * 24} hours."]},
        )


def authorize_for_scopes(
    *,
    actor: Principal,
    action: Action,
    resource: Resource,
    doing: str,
    scopes: Sequence[str],
    expires_at: datetime,
) -> Authorization:
    """Authorize creating or changing a key with these scopes.

    A key that may do more than use and view deployments affects others, so it needs a fresh second
    factor.

    Raises:
        NotFound, NotPermitted: as `authorize` and `authorize_binding`.
    """
    context = {"lifetime_days": lifetime_days(expires_at)}
    if wider := _wider(scopes):
        return authorize_binding(
            actor=actor,
            action=action,
            resource=resource,
            doing=f"{doing} with the scope {wider[0][:60]}",
            context=context,
        )
    return authorize(actor=actor, action=action, resource=resource, context=context)


def _wider(scopes: Sequence[str]) -> list[str]:
    return sorted(set(scopes) - NARROW_SCOPES)


def check_owner(
    owner: Person | None,
    department: Department,
    actor: Principal,
    *,
    refused: str = "The key was not made",
) -> None:
    """Raise InvalidInput unless the new owner is the actor or an active member."""
    if owner is None or owner.pk == actor.person_id:
        return
    is_member = owner.role_assignments.filter(department=department).exists()
    if not owner.is_active or not is_member:
        raise InvalidInput(
            f"{refused}: the request is not valid.",
            fields={"owner": [f"{owner.name} is not an active member of {department.slug}."]},
        )


def _mint(properties: KeyProperties, **columns: Any) -> tuple[ApiKey, str]:
    pepper_version = max(settings.KEY_PEPPERS)
    public_id, secret = mint()
    key = ApiKey.objects.create(
        public_id=public_id,
        secret_hmac=secret_hmac(secret, settings.KEY_PEPPERS[pepper_version]),
        pepper_version=pepper_version,
        name=properties.name,
        purpose=properties.purpose,
        scopes=list(properties.scopes),
        allowed_deployments=list(properties.allowed_deployments),
        networks=list(properties.networks),
        expires_at=properties.expires_at,
        **columns,
    )
    return key, format_token(public_id, secret)


def key_record(
    actor: Principal,
    action: str,
    key: ApiKey,
    *,
    reason: str = "",
    decision: Authorization | None = None,
    **more: str,
) -> None:
    """Audit a change of a key, and notify the gateways on commit."""
    audit_record(
        actor=actor,
        action=action,
        subject=Subject("key", key.public_id, key.name, person=key.person_id),
        reason=reason,
        department=key.department.slug if key.department else "",
        data={
            "scopes": key.scopes,
            "expires_at": key.expires_at.isoformat(),
            "allowed_deployments": key.allowed_deployments,
            "networks": key.networks,
            **more,
            **(proof_facts(actor.proof) if action in _BINDING and _wider(key.scopes) else {}),
        },
        decision=decision,
    )
    transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL, key_notice(key.public_id)))
