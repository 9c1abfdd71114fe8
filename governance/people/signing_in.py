"""Password checks and records of sign-ins; the web surface checks second factors."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.hashers import make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.crypto import salted_hmac

from governance.audit.services import Attempt, Subject, audit_record
from governance.errors import DomainError, InvalidInput, NotAuthenticated, NotPermitted
from governance.people.attempts import (
    forget_codes,
    forget_failures,
    refuse_codes_when_locked,
    refuse_when_locked,
)
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from governance.people.sessions import sessions_end
from governance.principals import ANONYMOUS, Principal, request_context

PASSWORD_MAX = 256
SIGN_IN = "person:sign_in"


def sign_in_attempt(*, person: Person | None, email: str = "") -> Attempt:
    """Return a sign-in attempt, for the error that refuses it; the actor is not known yet.

    An unknown address has no person's key to encrypt it, so the log stores a tag that tells such
    addresses apart.
    """
    if person is not None:
        subject = Subject("person", str(person.pk), email or person.email)
    else:
        tag = salted_hmac("assay.audit.unknown_address", email, algorithm="sha256").hexdigest()
        subject = Subject("person", "", f"unknown address {tag[:8]}")
    return Attempt(actor=ANONYMOUS, action=SIGN_IN, subject=subject)


def password_check(*, email: str, password: str) -> Person:
    """Return the person with this address and password. Every failure has the same error and cost.

    This checks the first factor only; call `sign_in_record` after the last one.

    Raises:
        NotAuthenticated: the address or the password is wrong, or the account is inactive.
        QuotaExceeded: too many failures for this account, or from this client address.
        Unavailable: failures cannot be counted at the moment.
    """
    # PostgreSQL stores no NUL; an address with one cannot belong to a person.
    email = email.replace("\x00", "").strip().lower()[:254]
    address = request_context.get().client_address
    person = Person.objects.filter(email=email).first()
    attempt = sign_in_attempt(person=person, email=email)
    try:
        refuse_when_locked(email, address)
    except DomainError as error:
        error.attempt = attempt
        raise
    if len(password) > PASSWORD_MAX:
        password = ""
    if person is None:
        # Take as long as a real check: the response time must not tell whether the account exists.
        make_password(password)
        matches = False
    else:
        matches = person.check_password(password) and person.is_active
    if person is None or not matches:
        raise NotAuthenticated("The e-mail address or the password is wrong.", attempt=attempt)
    forget_failures(email, address)
    return person


def code_attempt(*, person: Person) -> None:
    """Count a second factor before it is checked.

    Raises:
        QuotaExceeded: too many wrong second factors for this person, from any address.
        Unavailable: failures cannot be counted at the moment.
    """
    try:
        refuse_codes_when_locked(person.pk)
    except DomainError as error:
        error.attempt = sign_in_attempt(person=person)
        raise


def code_refused(*, person: Person) -> NotAuthenticated:
    """Return the error for a wrong second factor."""
    return NotAuthenticated(
        "The code is wrong.",
        code="wrong_second_factor",
        hint="An app's code is valid once, for half a minute; a recovery code is valid once.",
        attempt=sign_in_attempt(person=person),
    )


def sign_in_record(*, person: Person, methods: Sequence[str]) -> None:
    """Record a sign-in and its methods: password, totp, recovery_codes, webauthn, sso…

    Raises:
        NotAuthenticated: the account became inactive between the first factor and now.
    """
    with transaction.atomic():
        # The lock orders this and a deactivation: the later of the two sees the other.
        current = Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        if not current.is_active:
            raise NotAuthenticated(
                f"The account of {person.name} is inactive and cannot sign in.",
                attempt=sign_in_attempt(person=person),
            )
        audit_record(
            actor=principal_for_person(person),
            action=SIGN_IN,
            subject=Subject("person", str(person.pk), person.name),
            data={"methods": list(methods)},
        )
    forget_codes(person.pk)


def step_up_record(*, actor: Principal, method: str, token: str = "") -> None:
    """Record that a signed-in person gave a second factor again. `token` is the public ID of the
    access token that they used; empty in the portal.
    """
    audit_record(
        actor=actor,
        action="person:step_up",
        subject=Subject("person", actor.id, actor.name),
        data={"method": method, **({"token": token} if token else {})},
    )


def own_account(actor: Principal) -> Person:
    """Return the acting person.

    Raises:
        NotPermitted: the actor is not a person.
    """
    if actor.person_id is None:
        raise NotPermitted(f"{actor.name} is not a person; it has no account of its own.")
    return Person.objects.get(pk=actor.person_id)


def password_checked(password: str, person: Person, *, field: str) -> None:
    """Check that a new password is strong enough for this person.

    Raises:
        InvalidInput: it is too weak; the reasons are under `field`.
    """
    try:
        if len(password) > PASSWORD_MAX:
            raise ValidationError(f"A password has {PASSWORD_MAX} characters at most.")
        validate_password(password, person)
    except ValidationError as error:
        raise InvalidInput(
            "The new password is too weak.", fields={field: list(error.messages)}
        ) from error


def password_change(
    *, actor: Principal, current: str, new: str, keep_session: str | None = None
) -> Person:
    """Change the actor's own password, and end their other sessions.

    `keep_session` is the key of the session that makes the change. Access tokens stay valid: they
    are separate credentials, listed and revoked separately.

    Raises:
        NotAuthenticated: the current password is wrong.
        InvalidInput: the new password is too weak, or the account has no password to change.
        QuotaExceeded, Unavailable: as `password_check`.
    """
    person = own_account(actor)
    if not person.has_usable_password():
        raise InvalidInput(
            f"{person.name} signs in without a password, so there is none to change.",
            hint="Sign in with a passkey or single sign-on, as before.",
        )
    password_checked(new, person, field="new")
    password_check(email=person.email, password=current)
    with transaction.atomic():
        person = Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        person.set_password(new)
        person.save(update_fields=["password"])
        ended = sessions_end(person_id=person.pk, keep=keep_session)
        audit_record(
            actor=actor,
            action="person:change_password",
            subject=Subject("person", str(person.pk), person.name),
            data={"sessions_ended": ended},
        )
    return person
