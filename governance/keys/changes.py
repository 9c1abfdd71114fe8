"""Changes to a live key: its owner, the places it may be used from, and its person's proof."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from governance.errors import NotPermitted, WrongState
from governance.keys.checks import Asked, check
from governance.keys.models import ApiKey
from governance.keys.services import (
    authorize_for_scopes,
    key_locked,
    key_record,
    key_resource,
    refuse_stranger,
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
    """Change what is given and leave the rest; holds for the next request, and cuts running ones
    that no longer fit. Whoever may make a key of the department may change one.

    Scopes and expiry stay as they were made: another key, or a rotation, is for those.

    Raises:
        NotFound, NotPermitted: there is none, or as for `key_create`.
        WrongState: it is revoked, expired, or a personal token.
        InvalidInput: a field is out of bounds; `fields` says which.
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
            raise WrongState(f"{key.name} is a personal access token; there is nothing to change.")
        if key.revoked_at is not None or key.expires_at <= timezone.now():
            raise WrongState(f"Key {key.name} is dead; it cannot be changed.")
        asked = Asked(
            name=key.name if name is None else name,
            scopes=key.scopes,
            expires_at=key.expires_at,
            purpose=key.purpose if purpose is None else purpose,
            allowed_deployments=(
                key.allowed_deployments if allowed_deployments is None else allowed_deployments
            ),
            networks=key.networks if networks is None else networks,
        ).tidy()
        check(asked, refused="The key was not changed")
        if owner is not None and owner.pk != key.owner_id:
            refuse_stranger(owner, key.department, actor, refused="The key was not changed")
            key.owner = owner
        key.name, key.purpose = asked.name, asked.purpose
        key.allowed_deployments = list(asked.allowed_deployments)
        key.networks = list(asked.networks)
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
    """Keep with the actor's access token that its person has just given `method`. It goes with the
    token: what is revoked or expired proves nothing.

    Raises:
        NotPermitted: the actor is not a person with an access token that is alive.
    """
    with transaction.atomic():
        key = None
        if actor.person_id is not None and actor.key_id is not None:
            rows = ApiKey.objects.select_for_update(of=("self",)).filter(revoked_at=None)
            key = rows.filter(pk=actor.key_id, person_id=actor.person_id).first()
        if key is None:
            raise NotPermitted(
                f"{actor.name} does not act by a personal access token; there is none to keep the "
                "proof with.",
                code="person_required",
                hint="In the portal, verify your identity under Your account.",
            )
        key.proof_method, key.proved_at = method, timezone.now()
        key.save(update_fields=["proof_method", "proved_at"])
        step_up_record(actor=actor, method=method, token=key.public_id)
    return Proof(key.proof_method, key.proved_at)
