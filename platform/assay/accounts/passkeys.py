"""Passkeys (WebAuthn): registering one, and proving who one is with it.

The challenge of a ceremony is in the session; allauth and fido2 check origin, challenge and
signature. What a browser posts is untrusted JSON, and what is wrong with it is a refusal.
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
# How fido2's parsers fail on what is not theirs, and on keys that they cannot check.
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
    """fido2's mappings and enums as JSON has them."""
    if isinstance(options, dict) or hasattr(options, "items"):
        return {str(key): _plain(value) for key, value in options.items() if value is not None}
    if isinstance(options, (list, tuple)):
        return [_plain(value) for value in options]
    return options


def registration_options(*, actor: Principal) -> Any:
    """Return the options for a browser to make a passkey: discoverable, and verifying its user."""
    return _plain(auth.begin_registration(own_account(actor), True))


def passkey_add(
    *, actor: Principal, name: str, credential: str, link_id: int | None = None
) -> list[str]:
    """Put a passkey on one's own account; returns recovery codes when they are new.

    `link_id` is of the opened one-time link that a first factor on a privileged account needs.

    Raises:
        InvalidInput: the name or the browser's answer is wrong, or the challenge is not ours.
        WrongState: there are `MOST` already.
        NotPermitted: as `addition_permitted`.
    """
    name = name.strip()
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise InvalidInput(
            f"A passkey's name has 1 to {NAME_MAX} printable characters.",
            fields={"name": ["is empty, too long or not printable"]},
        )
    given = credential_of(credential)
    try:
        auth.parse_registration_response(given)
        made = auth.complete_registration(given)
        verified = made.is_user_verified()
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
        auth.WebAuthn.add(person, name, given)
        factor_record(actor, person, "person:add_factor", {"type": "webauthn", "name": name})
        return first_recovery_codes(person)


def authentication_options(*, person: Person | None) -> Any:
    """Return the options for a browser to use a passkey: of `person`, or of anyone who holds one
    for this site.
    """
    return _plain(auth.begin_authentication(person))


def passkey_check(*, person: Person | None, credential: str) -> Authenticator:
    """The passkey that signed the session's challenge; with no `person`, the key says whose it is.

    Raises:
        InvalidInput: what the browser sent is malformed.
        NotAuthenticated: no passkey of an active account signed this challenge.
        QuotaExceeded, Unavailable: too many wrong ones, or they cannot be counted.
    """
    address = request_context.get().client_address
    if person is None:
        refuse_address_when_locked(address)
    else:
        code_attempt(person=person)
    given = credential_of(credential)
    holder = person
    try:
        answer = auth.parse_authentication_response(given)
        if holder is None:
            # Whatever challenge is in the session: alone it is both factors, or none.
            if not answer.response.authenticator_data.is_user_verified():
                raise ValueError("The device did not verify its user.")
            holder = auth.extract_user_from_response(given)
        row: Authenticator = auth.complete_authentication(holder, given)
    except _MALFORMED as error:
        auth.clear_state()
        raise NotAuthenticated(
            "The passkey is not known here, or its answer came too late.",
            code="wrong_second_factor",
            hint="Try again; a challenge holds once.",
            attempt=sign_in_attempt(person=holder),
        ) from error
    with transaction.atomic():
        Authenticator.objects.filter(pk=row.pk).update(last_used_at=timezone.now())
    if person is None:
        forget_address_failure(address)
    else:
        forget_codes(person.pk)
    return row
