"""Passkeys (WebAuthn): registration and authentication.

The challenge is in the session; allauth and fido2 check origin, challenge and signature. Browsers
post untrusted JSON; errors in it are refusals.
"""

from __future__ import annotations

import struct
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn.internal import auth
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from assay.accounts.factors import (
    Type,
    addition_permitted,
    credential_of,
    factor_record,
    first_recovery_codes,
    locked_own,
)
from governance.errors import InvalidInput, NotAuthenticated, WrongState
from governance.people.attempts import (
    forget_address_failure,
    forget_codes,
    refuse_address_when_locked,
)
from governance.people.models import Person
from governance.people.signing_in import code_attempt, own_account, sign_in_attempt
from governance.principals import Principal, request_context

MOST = 10
NAME_MAX = 60
# Errors of fido2's parsers on malformed input, and on keys that they cannot check.
_MALFORMED = (
    ValidationError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    struct.error,
    RecursionError,
    NotImplementedError,
)


def _plain(options: Any) -> Any:
    """Convert fido2's mappings and enums to JSON types."""
    if isinstance(options, dict) or hasattr(options, "items"):
        return {str(key): _plain(value) for key, value in options.items() if value is not None}
    if isinstance(options, (list, tuple)):
        return [_plain(value) for value in options]
    return options


def registration_options(*, actor: Principal) -> Any:
    """Return the browser's options for a new passkey: discoverable, with user verification."""
    return _plain(auth.begin_registration(own_account(actor), True))


def passkey_add(
    *, actor: Principal, name: str, credential: str, link_id: int | None = None
) -> list[str]:
    """Add a passkey to the actor's own account; returns recovery codes if they are new.

    `link_id` is the opened one-time link that a first factor on a privileged account requires.

    Raises:
        InvalidInput: the name or the browser's answer is invalid, or the challenge is not ours.
        WrongState: the account already has `MOST` passkeys.
        NotPermitted: as `addition_permitted`.
    """
    name = name.strip()
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise InvalidInput(
            f"A passkey's name has 1 to {NAME_MAX} printable characters.",
            fields={"name": ["is empty, too long or not printable"]},
        )
    answer = credential_of(credential)
    try:
        auth.parse_registration_response(answer)
        registered = auth.complete_registration(answer)
        verified = registered.is_user_verified()
    except _MALFORMED as error:
        raise InvalidInput("The passkey could not be checked; it was not added.") from error
    if not verified:
        raise InvalidInput("The device did not verify its user; the passkey was not added.")
    with transaction.atomic():
        person = locked_own(actor)
        if Authenticator.objects.filter(user=person, type=Type.WEBAUTHN).count() >= MOST:
            raise WrongState(
                f"{person.name} has {MOST} passkeys already; no more can be added.",
                hint="Remove one that is not used.",
            )
        addition_permitted(actor, person, link_id)
        auth.WebAuthn.add(person, name, answer)
        factor_record(actor, person, "person:add_factor", {"type": "webauthn", "name": name})
        return first_recovery_codes(person)


def authentication_options(*, person: Person | None) -> Any:
    """Return the browser's options to use a passkey of `person`, or of anyone if it is None."""
    return _plain(auth.begin_authentication(person))


def passkey_check(*, person: Person | None, credential: str) -> Authenticator:
    """Return the passkey that signed the session's challenge. If `person` is None, the passkey
    identifies the person.

    Raises:
        InvalidInput: the browser's data is malformed.
        NotAuthenticated: the challenge was not signed by a passkey of an active account.
        QuotaExceeded, Unavailable: there were too many failures, or they cannot be counted.
    """
    address = request_context.get().client_address
    if person is None:
        refuse_address_when_locked(address)
    else:
        code_attempt(person=person)
    posted = credential_of(credential)
    holder = person
    try:
        answer = auth.parse_authentication_response(posted)
        if holder is None:
            # Regardless of the challenge, a passkey alone must verify its user: it is both factors.
            if not answer.response.authenticator_data.is_user_verified():
                raise ValueError("The device did not verify its user.")
            holder = auth.extract_user_from_response(posted)
        row: Authenticator = auth.complete_authentication(holder, posted)
    except _MALFORMED as error:
        auth.clear_state()
        raise NotAuthenticated(
            "The passkey is not known here, or its answer came too late.",
            code="wrong_second_factor",
            hint="Try again; each challenge works only once.",
            attempt=sign_in_attempt(person=holder),
        ) from error
    with transaction.atomic():
        Authenticator.objects.filter(pk=row.pk).update(last_used_at=timezone.now())
    if person is None:
        forget_address_failure(address)
    else:
        forget_codes(person.pk)
    return row
