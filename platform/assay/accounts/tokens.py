"""Signing in without a browser: everything in one request."""

from __future__ import annotations

from assay.accounts.duty import owes_second_factor
from assay.accounts.factors import code_check, factors_of
from governance.errors import NotAuthenticated, NotPermitted
from governance.people.models import Person
from governance.people.signing_in import password_check, sign_in_attempt, sign_in_record


def token_sign_in(*, email: str, password: str, code: str = "") -> Person:
    """The person of these credentials, with the second factor when they have one; audited.

    Raises:
        NotAuthenticated: the password or the code is not right, or a code is needed.
        NotPermitted: their role asks for a second factor, and there is none yet.
        QuotaExceeded, Unavailable: as `password_check`.
    """
    person = password_check(email=email, password=password)
    methods = ["password"]
    factors = factors_of(person.pk)
    if factors.any:
        if not code:
            raise NotAuthenticated(
                "This account has a second factor; the password alone signs nobody in.",
                code="second_factor_required",
                hint="Send `code` too: of the authenticator app, or a recovery code.",
                attempt=sign_in_attempt(person=person),
            )
        methods.append(str(code_check(person=person, code=code).type))
    elif owes_second_factor(person):
        raise NotPermitted(
            f"{person.name} holds a role that asks for a second factor, and has none.",
            code="second_factor_missing",
            hint="Sign in to the portal once and add one.",
            attempt=sign_in_attempt(person=person),
        )
    sign_in_record(person=person, methods=methods)
    return person
