"""Changes to a live key: its owner, its restrictions, and its person's proof."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from governance.errors import NotPermitted, WrongState
from governance.keys.checks import KeyProperties, check
from governance.keys.models import ApiKey
from governance.keys.services import (
    authorize_for_scopes,
    check_owner,
    key_locked,
    key_record,
    key_resource,
)
from governance.people.models import Person
from governance.people.signing_in import step_up_record
from governance.permissions import Action
from governance.principals import Principal, Proof


def key_update(
    *,
    actor: Principal,
    key_id: int,
    name: str | None = None,
    purpose: str | None = None,
    owner: Person | None = None,
    allowed_deployments: Sequence[str] | None = None,
    networks: Sequence[str] | None = None,
) -> ApiKey:
    """Change the fields that are not None. The change applies to the next request, and ends running
    requests that it no longer permits. It needs the permission to create keys of the department.

    Scopes and expiry cannot change; create another key, or rotate this one.

    Raises:
        NotFound, NotPermitted: it does not exist, or as for `key_create`.
        WrongState: it is revoked, expired, or a personal token.
        InvalidInput: a field is out of bounds; `fields` names it.
    """
    with transaction.atomic():
        key = key_locked(key_id)
        decision = authorize_for_scopes(
            actor=actor,
            action=Action.KEY_CREATE,
            resource=key_resource(key),
            doing=f"changing key {key.name}",
            scopes=key.scopes,
            expires_at=key.expires_at,
        )
        if key.department is None:
            raise WrongState(f"{key.name} is a personal access token; it cannot be changed.")
        if key.revoked_at is not None or key.expires_at <= timezone.now():
            raise WrongState(f"Key {key.name} is revoked or expired; it cannot be changed.")
        properties = KeyProperties(
            name=key.name if name is None else name,
            scopes=key.scopes,
            expires_at=key.expires_at,
            purpose=key.purpose if purpose is None else purpose,
            allowed_deployments=(
                key.allowed_deployments if allowed_deployments is None else allowed_deployments
            ),
            networks=key.networks if networks is None else networks,
        ).tidy()
        check(properties, refused="The key was not changed")
        if owner is not None and owner.pk != key.owner_id:
            check_owner(owner, key.department, actor, refused="The key was not changed")
            key.owner = owner
        key.name, key.purpose = properties.name, properties.purpose
        key.allowed_deployments = list(properties.allowed_deployments)
        key.networks = list(properties.networks)
        key.save(update_fields=["name", "purpose", "owner", "allowed_deployments", "networks"])
        key_record(
            actor,
            "key:update",
            key,
            decision=decision,
            purpose=key.purpose,
            owner=str(key.owner_id or ""),
        )
    return key


def token_prove(*, actor: Principal, method: str) -> Proof:
    """Record on the actor's access token that its person has just used `method`.

    The proof ends with the token: a revoked or expired one proves nothing.

    Raises:
        NotPermitted: the actor does not use a live personal access token.
    """
    with transaction.atomic():
        key = None
        if actor.person_id is not None and actor.key_id is not None:
            rows = ApiKey.objects.select_for_update(of=("self",)).filter(revoked_at=None)
            key = rows.filter(pk=actor.key_id, person_id=actor.person_id).first()
        if key is None:
            raise NotPermitted(
                f"{actor.name} does not use a personal access token, so the proof cannot be "
                "recorded.",
                code="person_required",
                hint="In the portal, verify your identity under Your account.",
            )
        key.proof_method, key.proved_at = method, timezone.now()
        key.save(update_fields=["proof_method", "proved_at"])
        step_up_record(actor=actor, method=method, token=key.public_id)
    return Proof(key.proof_method, key.proved_at)
