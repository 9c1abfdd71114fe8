"""Second factors: an authenticator app, recovery codes, passkeys.

allauth stores them (`Authenticator`) and implements TOTP and WebAuthn. Here they are added, removed
and checked, each in one transaction with its audit event, and every attempt is counted.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import (
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
    yield_hotp_counters_from_time,
)
from cryptography.fernet import InvalidToken
from django.db import transaction
from django.utils import timezone

from assay.accounts import crypto
from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, NotFound, NotPermitted, Unavailable, WrongState
from governance.people.attempts import forget_codes
from governance.people.credentials import STRONG, has_factor, is_privileged, sign_in_unconfirmed
from governance.people.links import link_claim, not_valid, recovery_needed
from governance.people.models import LinkPurpose, Person
from governance.people.proof import proof_facts, require_proof
from governance.people.recoveries.opening import sign_in_confirmed
from governance.people.recoveries.services import checked_reason, require_active
from governance.people.selectors import person_get, person_resource, principal_for_person
from governance.people.sessions import sessions_end
from governance.people.signing_in import code_attempt, code_refused, own_account
from governance.permissions import Action
from governance.policy.services import authorize_binding
from governance.principals import Principal

Type = Authenticator.Type
CODE_MAX = 32


@dataclass(frozen=True, slots=True)
class Factors:
    """Second factors of a person; `recovery_left` is None without recovery codes."""

    totp: Authenticator | None
    passkeys: list[Authenticator]
    recovery_left: int | None

    @property
    def any(self) -> bool:
        """True if a password alone is not enough to sign in."""
        return self.totp is not None or bool(self.passkeys)


def factors_of(person_id: int) -> Factors:
    """Return a person's second factors, with one query. Never print the rows: they have secrets."""
    rows = list(Authenticator.objects.filter(user_id=person_id).order_by("pk"))
    left = None
    for row in rows:
        if row.type == Type.RECOVERY_CODES:
            used = int(row.data["used_mask"]).bit_count()
            left = _how_many_codes() - used
    totp = next((row for row in rows if row.type == Type.TOTP), None)
    return Factors(totp, [row for row in rows if row.type == Type.WEBAUTHN], left)


def _how_many_codes() -> int:
    from allauth.mfa import app_settings

    return int(app_settings.RECOVERY_CODE_COUNT)


def new_secret() -> str:
    """Return 160 random bits in Base32 for an authenticator app."""
    return str(generate_totp_secret())


def _counter_of(secret: str, code: str) -> int | None:
    """Return the time step of this code, if it is the current or an adjacent one."""
    digits = "".join(code.split())
    for counter in yield_hotp_counters_from_time():
        expected = format_hotp_value(hotp_value(secret, counter))
        if hmac.compare_digest(digits.encode(), expected.encode()):
            return int(counter)
    return None


def code_check(*, person: Person, code: str) -> Authenticator:
    """Use up a code, and return its factor.

    The row in the database ensures that the code of a time step works once, and none of an earlier
    step after it, even if two processes receive the same code at once.

    Raises:
        NotAuthenticated: the code is wrong or was used.
        QuotaExceeded: there were too many wrong codes.
        Unavailable: attempts cannot be counted, or the factors cannot be decrypted.
    """
    code_attempt(person=person)
    with transaction.atomic():
        rows = Authenticator.objects.select_for_update(of=("self",)).order_by("-type")
        for row in rows.filter(user=person, type__in=(Type.TOTP, Type.RECOVERY_CODES)):
            if _takes(row, code[:CODE_MAX]):
                row.last_used_at = timezone.now()
                row.save()
                forget_codes(person.pk)
                return row
    raise code_refused(person=person)


def _takes(row: Authenticator, code: str) -> bool:
    try:
        if row.type == Type.RECOVERY_CODES:
            codes = RecoveryCodes(row)
            valid: bool = codes.validate_code(code)
            row.data = codes.instance.data
            return valid
        counter = _counter_of(crypto.decrypt(row.data["secret"]), code)
    except InvalidToken as error:
        raise Unavailable(
            f"The second factors of {row.user} cannot be read; no code can be checked.",
            hint="They were encrypted under another ASSAY_KEY_PEPPER: set it again, or have an "
            "administrator reset the account's second factors.",
        ) from error
    if counter is None or counter <= row.data.get("last_counter", -1):
        return False
    row.data["last_counter"] = counter
    return True


def code_counter(secret: str, code: str) -> int:
    """Return the time step of a code from a new app with `secret`.

    Raises:
        InvalidInput: the code is not one of this secret.
    """
    counter = _counter_of(secret, code[:CODE_MAX])
    if counter is None:
        raise InvalidInput(
            "The code is not right; the authenticator app was not added.",
            hint="Check that the clocks of this device and of the server agree.",
            fields={"code": ["is not what the app shows now"]},
        )
    return counter


def totp_activate(
    *, actor: Principal, secret: str, code: str, link_id: int | None = None
) -> list[str]:
    """Add an authenticator app to the actor's own account; returns recovery codes if they are new.

    `link_id` is the opened one-time link that a first factor on a privileged account requires.

    Raises:
        InvalidInput: the code is not one of this secret.
        WrongState: the account already has an app.
        NotPermitted: as `addition_permitted`.
    """
    counter = code_counter(secret, code)
    with transaction.atomic():
        person = locked_own(actor)
        if Authenticator.objects.filter(user=person, type=Type.TOTP).exists():
            raise WrongState(
                f"{person.name} has an authenticator app already; a second one cannot be added.",
                hint="Remove the old one first.",
            )
        addition_permitted(actor, person, link_id)
        return app_add(person, secret, counter)


def app_add(person: Person, secret: str, counter: int) -> list[str]:
    """Add an app whose code of step `counter` was checked, in the caller's transaction; returns
    recovery codes if they are new.
    """
    Authenticator.objects.create(
        user=person,
        type=Type.TOTP,
        data={"secret": crypto.encrypt(secret), "last_counter": counter},
    )
    factor_record(principal_for_person(person), person, "person:add_factor", {"type": "totp"})
    return first_recovery_codes(person)


def first_factor_refused(person: Person) -> NotPermitted | None:
    """Return the refusal of a first second factor without a one-time link. Returns None if the
    account needs no link, because it has a factor, or no role that decides for others.
    """
    if has_factor(person.pk) or not is_privileged(person):
        return None
    return NotPermitted(
        f"{person.name} holds a role that decides for others; adding the first second factor to "
        "this account needs a one-time link of a recovery, which two administrators make.",
        code="factor_link_required",
        hint="Ask an administrator to request one: People → your name → Sign-in → Recover the "
        "account. Another one approves it.",
    )


def addition_permitted(actor: Principal, person: Person, link_id: int | None) -> None:
    """Check that a factor may be added to the actor's own account, whose row is locked.

    The first factor of a privileged account uses up a recovery's link, which two parties made; a
    further factor of any account needs a fresh proof by an existing one. Otherwise someone with a
    leaked password, or one administrator, could add a factor and decide with it. If the owner adds
    the first factor alone, the account is unconfirmed.

    Raises:
        NotPermitted: there is no open link for this account, or no fresh proof.
    """
    if has_factor(person.pk):
        require_proof(actor, "adding another second factor", own=True)
        return
    refusal = first_factor_refused(person)
    if link_id is None:
        if refusal is not None:
            raise refusal
        sign_in_unconfirmed(person)
        return
    link = link_claim(link_id=link_id, purpose=LinkPurpose.FACTOR)
    if link.person_id != person.pk:
        raise not_valid(link)
    sign_in_confirmed(person)


def recovery_codes_renew(*, actor: Principal) -> list[str]:
    """Replace the recovery codes of the actor's own account; the new ones are shown only once.

    Raises:
        WrongState: the person has no second factor, so recovery codes are useless.
        NotPermitted: no second factor was used recently.
    """
    with transaction.atomic():
        person = locked_own(actor)
        if not has_factor(person.pk):
            raise WrongState(
                f"{person.name} has no second factor that recovery codes could replace.",
                hint="Add an authenticator app or a passkey first.",
            )
        require_proof(actor, "making new recovery codes", own=True)
        Authenticator.objects.filter(user=person, type=Type.RECOVERY_CODES).delete()
        codes: list[str] = RecoveryCodes.activate(person).generate_codes()
        factor_record(actor, person, "person:renew_recovery_codes", {})
        return codes


def factor_remove(*, actor: Principal, factor_id: int) -> None:
    """Remove an app or passkey from the actor's own account; the last one with its recovery codes.

    Raises:
        NotFound: the account has no such factor.
        NotPermitted: no second factor was used recently.
    """
    with transaction.atomic():
        person = locked_own(actor)
        row = Authenticator.objects.filter(user=person, type__in=STRONG, pk=factor_id).first()
        if row is None:
            raise NotFound(f"There is no second factor {factor_id} on your account.")
        require_proof(actor, "removing a second factor", own=True)
        facts = {"type": str(row.type), "name": _name(row)}
        row.delete()
        if not has_factor(person.pk):
            Authenticator.objects.filter(user=person).delete()
        factor_record(actor, person, "person:remove_factor", facts)


def factors_reset(*, actor: Principal, person_id: int, reason: str) -> Person:
    """Remove all second factors of a person who lost theirs, and end their sessions.

    Raises:
        NotFound, NotPermitted: the actor may not see or change that person, has no fresh second
            factor, or it is the actor's own account; or it decides for others (code
            `recovery_needed`).
        InvalidInput: there is no reason.
        WrongState: the person has no second factor, or the account is inactive.
    """
    with transaction.atomic():
        person = person_get(actor=actor, person_id=person_id)
        # Locked, so that the account gets no role between this check and the reset.
        person = Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        decision = authorize_binding(
            actor=actor,
            action=Action.PERSON_UPDATE,
            resource=person_resource(person),
            doing=f"resetting the second factors of {person.name}",
        )
        if actor.person_id == person.pk:
            raise NotPermitted(
                f"{person.name} may not reset their own second factors.",
                hint="Remove them on your account's page; another administrator can reset them.",
            )
        reason = checked_reason(reason)
        if is_privileged(person):
            raise recovery_needed(person, "resetting its second factors")
        # Reactivating an account may give it the roles of its groups.
        require_active(person)
        removed, _ = Authenticator.objects.filter(user=person).delete()
        if not removed:
            raise WrongState(f"{person.name} has no second factor to reset.")
        person.empowered_at = timezone.now()
        person.save(update_fields=["empowered_at", "changed_at"])
        ended = sessions_end(person_id=person.pk)
        audit_record(
            actor=actor,
            action="person:reset_factors",
            subject=_subject(person),
            reason=reason,
            data={"factors": removed, "sessions_ended": ended, **proof_facts(actor.proof)},
            decision=decision,
        )
    return person


def credential_of(text: str) -> dict[str, Any]:
    """Parse the JSON that a browser posts for a passkey.

    Raises:
        InvalidInput: it is malformed.
    """
    try:
        credential = json.loads(text[:65536])
    except (ValueError, RecursionError):
        credential = None
    if not isinstance(credential, dict) or not isinstance(credential.get("response"), dict):
        raise InvalidInput("The browser's data is not the answer of a passkey.")
    return credential


def locked_own(actor: Principal) -> Person:
    """Return the actor's own record, locked against concurrent changes of their factors."""
    return Person.objects.select_for_update(no_key=True).get(pk=own_account(actor).pk)


def first_recovery_codes(person: Person) -> list[str]:
    """Create recovery codes for the first second factor; empty if there are some already."""
    if Authenticator.objects.filter(user=person, type=Type.RECOVERY_CODES).exists():
        return []
    codes: list[str] = RecoveryCodes.activate(person).generate_codes()
    return codes


def _name(row: Authenticator) -> str:
    return str(row.data.get("name", "")) if row.type == Type.WEBAUTHN else ""


def _subject(person: Person) -> Subject:
    return Subject("person", str(person.pk), person.name)


def factor_record(actor: Principal, person: Person, action: str, data: dict[str, Any]) -> None:
    """Record a change of the actor's own factors in the audit log, in its transaction."""
    audit_record(actor=actor, action=action, subject=_subject(person), data=data)
