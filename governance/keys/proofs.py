"""The newest second factor that a person gave with an access token of theirs."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from governance.errors import NotPermitted
from governance.keys.models import ApiKey
from governance.people.signing_in import step_up_record
from governance.principals import Principal, Proof


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
