"""Step-up: an action that binds others needs a fresh second factor of the acting person.

An open session, a stolen password or a leaked access token is enough to read, but not to decide,
grant, recall or erase. `governance.policy.services.authorize_binding` checks such actions. A
password or single sign-on alone is not enough: the second factor must be enrolled in Assay. In the
local demonstration, where one click signs in as any person, that click is the method `local`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils import timezone

from governance.errors import NotPermitted
from governance.principals import Principal, Proof

if TYPE_CHECKING:
    from governance.audit.services import Attempt

FRESH = timedelta(minutes=10)
LOCAL = "local"
METHODS = ("webauthn", "totp", "recovery_codes", LOCAL)
CODE = "step_up_required"
UNCONFIRMED = "sign_in_unconfirmed"
# Allowed difference between the clocks of two web processes.
_SKEW = timedelta(seconds=30)


def proof_fresh(actor: Principal) -> bool:
    """Return whether the actor is a person who gave a second factor within `FRESH`."""
    proof = actor.proof
    if actor.person_id is None or proof is None or proof.method not in METHODS:
        return False
    return -_SKEW <= timezone.now() - proof.at < FRESH


def require_proof(
    actor: Principal, doing: str, *, attempt: Attempt | None = None, own: bool = False
) -> Proof:
    """Return the actor's fresh proof, to be recorded with the action.

    `doing` is such as "approving release 7". `own`: it concerns only the actor's own account.

    Raises:
        NotPermitted: the proof is missing or older than `FRESH` (code `step_up_required`); or two
            parties have not confirmed the account yet (code `sign_in_unconfirmed`).
    """
    if actor.unconfirmed and not own:
        raise NotPermitted(
            f"{doing[:1].upper()}{doing[1:]} needs a confirmed account. How {actor.name} signs in "
            "rests on one administrator, or on a factor that was added before the account held a "
            "role that decides for others.",
            code=UNCONFIRMED,
            hint="Ask two administrators for a recovery of the account: People → your name → "
            "Sign-in → Recover the account.",
            attempt=attempt,
        )
    if actor.proof is None or not proof_fresh(actor):
        raise NotPermitted(
            f"{doing[:1].upper()}{doing[1:]} needs a second factor, given within the last "
            f"{FRESH.seconds // 60} minutes; {actor.name} has given none in that time.",
            code=CODE,
            hint="Verify your identity on your account page, or for an access token with "
            "`assay step-up` or POST /api/v1/auth/step-up.",
            attempt=attempt,
        )
    return Proof(actor.proof.method, min(actor.proof.at, timezone.now()))


def proof_facts(proof: Proof | None) -> dict[str, str]:
    """Return the fields about the proof for the event of the action."""
    if proof is None:
        return {}
    return {
        "proof_method": proof.method,
        "proved_at": proof.at.isoformat(timespec="milliseconds"),
    }
