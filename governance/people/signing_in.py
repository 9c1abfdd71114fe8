"""Password checks, and the record of every sign-in; second factors are the surface's."""

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
    """A sign-in attempt, for the error that refuses it; the actor is not known yet.

    An address that belongs to no person has no key to be kept under; the log tells such addresses
    apart without keeping them.
    """
    if person is not None:
        subject = Subject("person", str(person.pk), email or person.email)
    else:
        tag = salted_hmac("assay.audit.unknown_address", email, algorithm="sha256").hexdigest()
        subject = Subject("person", "", f"unknown address {tag[:8]}")
    return Attempt(actor=ANONYMOUS, action=SIGN_IN, subject=subject)


def password_check(*, email: str, password: str) -> Person:
    """The person of that address and password; the same refusal and work for any that is wrong.

    This is the first factor only; `sign_in_record` is for when all were given.

    Raises:
        NotAuthenticated: the address or the password is not right, or the account is inactive.
        QuotaExceeded: too many failures for this account, or from this client address.
        Unavailable: failures cannot be counted just now.
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
        # As long as a real check takes, so that time does not tell who has an account.
        make_password(password)
        right = False
    else:
        right = person.check_password(password) and person.is_active
    if person is None or not right:
        raise NotAuthenticated("The e-mail address or the password is wrong.", attempt=attempt)
    forget_failures(email, address)
    return person


def code_attempt(*, person: Person) -> None:
    """Count a second factor before it is looked at.

    Raises:
        QuotaExceeded: too many wrong ones for this person, from wherever.
        Unavailable: failures cannot be counted just now.
    """
    try:
        refuse_codes_when_locked(person.pk)
    except DomainError as error:
        error.attempt = sign_in_attempt(person=person)
        raise


def code_refused(*, person: Person) -> NotAuthenticated:
    """The refusal of a wrong second factor, to be raised."""
    return NotAuthenticated(
        "The code is wrong.",
        code="wrong_second_factor",
        hint="An app's code is valid once, for half a minute; a recovery code is valid once.",
        attempt=sign_in_attempt(person=person),
    )


def sign_in_record(*, person: Person, methods: Sequence[str]) -> None:
    """Record that a person is in, and by what: password, totp, recovery_codes, webauthn, sso…

    Raises:
        NotAuthenticated: the account became inactive between the first factor and now.
    """
    with transaction.atomic():
        # Whoever deactivates the account waits for this, or this sees that they did.
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
    """Record that a signed-in person gave a second factor again; `token` is the public id of the
    access token that it was given with, empty in the portal.
    """
    audit_record(
        actor=actor,
        action="person:step_up",
        subject=Subject("person", actor.id, actor.name),
        data={"method": method, **({"token": token} if token else {})},
    )


def own_account(actor: Principal) -> Person:
    """The person who acts.

    Raises:
        NotPermitted: it is no person.
    """
    if actor.person_id is None:
        raise NotPermitted(f"{actor.name} is no person; it has no account of its own.")
    return Person.objects.get(pk=actor.person_id)


def password_checked(password: str, person: Person, *, field: str) -> None:
    """Refuse a password that is too weak for this person.

    Raises:
        InvalidInput: with the reasons under `field`.
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
    """A new password for oneself; every other session of one's own ends.

    `keep_session` is the session key of the one that changes it. Access tokens stay: they are
    credentials of their own, listed and revoked on their own.

    Raises:
        NotAuthenticated: the current password is not right.
        InvalidInput: the new one is too weak, or the account has no password to change.
        QuotaExceeded, Unavailable: as `password_check`.
    """
    person = own_account(actor)
    if not person.has_usable_password():
        raise InvalidInput(
            f"{person.name} signs in without a password, so there is none to change.",
            hint="Sign in as before: with a passkey, or with single sign-on.",
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
