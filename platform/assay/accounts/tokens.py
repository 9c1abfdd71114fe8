"""Sign-in without a browser in one request, and later identity checks (step-up)."""

from __future__ import annotations

from django.utils import timezone

from assay.accounts.factor_requirement import lacks_second_factor
from assay.accounts.factors import code_check, factors_of
from governance.errors import NotAuthenticated, NotPermitted
from governance.keys.changes import token_prove
from governance.people.models import Person
from governance.people.signing_in import (
    own_account,
    password_check,
    sign_in_attempt,
    sign_in_record,
)
from governance.principals import Principal, Proof


def token_sign_in(*, email: str, password: str, code: str = "") -> tuple[Person, Proof | None]:
    """Check credentials; return the person, and the proof of their second factor, if any; audited.

    Raises:
        NotAuthenticated: the password or the code is wrong, or a code is needed.
        NotPermitted: a role requires a second factor, and the account has none.
        QuotaExceeded, Unavailable: as `password_check`.
    """
    person = password_check(email=email, password=password)
    methods = ["password"]
    proof = None
    factors = factors_of(person.pk)
    if factors.any:
        if not code:
            raise NotAuthenticated(
                "This account has a second factor; the password alone does not sign you in.",
                code="second_factor_required",
                hint="Send `code` too: of the authenticator app, or a recovery code.",
                attempt=sign_in_attempt(person=person),
            )
        proof = Proof(str(code_check(person=person, code=code).type), timezone.now())
        methods.append(proof.method)
    elif lacks_second_factor(person):
        raise NotPermitted(
            f"{person.name} has a role that requires a second factor, but has none.",
            code="second_factor_missing",
            hint="Sign in to the portal once and add one.",
            attempt=sign_in_attempt(person=person),
        )
    sign_in_record(person=person, methods=methods)
    return person, proof


def token_step_up(*, actor: Principal, code: str) -> Proof:
    """Verify the person behind an access token by a code. The proof is valid for ten minutes, with
    that token only.

    Raises:
        NotAuthenticated: the code is wrong or was used.
        NotPermitted: the actor is not a person with an access token, or has no second factor.
        QuotaExceeded, Unavailable: as `code_check`.
    """
    person = own_account(actor)
    if not factors_of(person.pk).any:
        raise no_second_factor(person)
    factor = code_check(person=person, code=code)
    return token_prove(actor=actor, method=str(factor.type))


def no_second_factor(person: Person) -> NotPermitted:
    """Return the refusal of a step-up for an account without a second factor."""
    return NotPermitted(
        f"{person.name} has no second factor; a password or single sign-on alone is not enough.",
        code="second_factor_missing",
        hint="Add an authenticator app or a passkey under your account in the portal.",
    )
