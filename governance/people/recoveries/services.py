"""Requests for recoveries, their rejection and their end.

A recovery needs two parties, and neither can use it alone: the requester gets a code, the approver
gets the link, unless it is mailed to the account's address (ADR 41).
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.services import Attempt
from governance.errors import InvalidInput, NotPermitted, WrongState
from governance.keys.tokens import secret_hmac
from governance.people.models import REASON_MAX, LinkPurpose, Person
from governance.people.recoveries.models import (
    LIVE,
    AccountRecovery,
    NoticeKind,
    RecoveryState,
)
from governance.people.recoveries.notices import account_tell
from governance.people.recoveries.selectors import recovery_get
from governance.people.recoveries.states import (
    RECOVERY_STATES,
    recovery_end,
    recovery_record,
    recovery_subject,
)
from governance.people.selectors import PEOPLE_AT_LARGE, person_get, person_resource
from governance.permissions import Action
from governance.policy.context import base_context
from governance.policy.decisions import Authorization
from governance.policy.engine import decide
from governance.policy.services import active_policy, authorize, authorize_binding
from governance.principals import Principal, service_principal

PENDING_FOR = timedelta(days=3)
# 50 random bits, typed by hand to use a link with 256. The alphabet omits look-alikes (0/O, 1/I).
CODE_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
CODE_LENGTH = 10


def recovery_request(
    *, actor: Principal, person_id: int, purpose: str, reason: str
) -> tuple[AccountRecovery, str]:
    """Request a link with which an account gets a new password, or a new first second factor.

    Returns the recovery and its code, which is shown only once. Nothing changes until another
    administrator approves the recovery and the person opens the link.

    Raises:
        InvalidInput: no reason, or an unknown purpose.
        NotFound, NotPermitted: the actor may not see the person, or may not grant roles on the
            whole platform; it is their own account, or they have no fresh second factor.
        WrongState: the account is inactive, or has a recovery already.
    """
    if purpose not in LinkPurpose.values:
        raise InvalidInput(
            f"A recovery is for a password or a second factor, not {purpose[:40]}.",
            fields={"purpose": [f"is one of {', '.join(LinkPurpose.values)}"]},
        )
    reason = checked_reason(reason)
    with transaction.atomic():
        person = person_get(actor=actor, person_id=person_id)
        person, decision = person_for_recovery(actor, person, "requesting a recovery")
        recoveries_end_expired(person)
        code = "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_LENGTH))
        pepper = max(settings.KEY_PEPPERS)
        try:
            with transaction.atomic():
                recovery = AccountRecovery.objects.create(
                    person=person,
                    purpose=purpose,
                    reason=reason,
                    requested_by_id=actor.person_id,
                    expires_at=timezone.now() + PENDING_FOR,
                    code_hmac=secret_hmac(code, settings.KEY_PEPPERS[pepper]),
                    pepper_version=pepper,
                )
        except IntegrityError as error:
            raise WrongState(
                f"A recovery of the account of {person.name} is under way; a second one was not "
                "requested.",
                hint="Reject that one first if it is stale.",
            ) from error
        recovery_record(
            actor=actor, recovery=recovery, state=RecoveryState.PENDING, decision=decision
        )
        account_tell(NoticeKind.REQUESTED, person, recovery=recovery)
    return recovery, f"{code[:5]}-{code[5:]}"


def recovery_reject(*, actor: Principal, recovery_id: int, reason: str) -> AccountRecovery:
    """Reject a recovery before its link is opened; its requester withdraws it the same way.

    The account's owner and everyone who may approve recoveries may reject one. Rejection must be
    possible at once and gives no access, so it needs no second factor.

    Raises:
        InvalidInput: no reason.
        NotFound, NotPermitted: the actor may not see it, or the policy denies it.
        WrongState: its link was opened, or it has ended.
    """
    reason = checked_reason(reason)
    with transaction.atomic():
        recovery = RECOVERY_STATES.locked(recovery_get(actor=actor, recovery_id=recovery_id).pk)
        decision = None
        if actor.person_id != recovery.person_id:
            decision = authorize(
                actor=actor,
                action=Action.PERSON_UPDATE,
                resource=person_resource(recovery.person),
            )
            _require_at_large(actor, recovery.person, decision)
        recovery_end(
            actor=actor,
            recovery=recovery,
            state=RecoveryState.REJECTED,
            reason=reason,
            decision=decision,
        )
        account_tell(NoticeKind.ENDED, recovery.person, recovery=recovery)
    return recovery


def recoveries_end(*, actor: Principal, person: Person, reason: str) -> int:
    """End the live recoveries of a person whose row is locked; returns their number."""
    live = AccountRecovery.objects.filter(person=person, state__in=LIVE).values_list("pk")
    for (pk,) in (rows := list(live)):
        recovery = RECOVERY_STATES.locked(pk)
        recovery_end(actor=actor, recovery=recovery, state=RecoveryState.REJECTED, reason=reason)
    return len(rows)


def recoveries_expire_due() -> int:
    """Expire the recoveries that are due; returns their number."""
    controller = service_principal("controller")
    with transaction.atomic():
        rows = AccountRecovery.objects.select_for_update(of=("self",), skip_locked=True)
        due = rows.filter(state__in=LIVE, expires_at__lte=timezone.now()).select_related("person")
        for recovery in (expired := list(due)):
            recovery_end(actor=controller, recovery=recovery, state=RecoveryState.EXPIRED)
    return len(expired)


def recoveries_end_expired(person: Person) -> None:
    """Expire a locked person's overdue recovery that the controller has not expired yet."""
    controller = service_principal("controller")
    overdue = AccountRecovery.objects.filter(
        person=person, state__in=LIVE, expires_at__lte=timezone.now()
    )
    for (pk,) in overdue.values_list("pk"):
        recovery = RECOVERY_STATES.locked(pk)
        recovery_end(actor=controller, recovery=recovery, state=RecoveryState.EXPIRED)


def checked_reason(reason: str) -> str:
    """Return the reason for a change to another person's account, in the form that is recorded.

    Raises:
        InvalidInput: it is empty, too long or not printable.
    """
    reason = reason.strip()
    if not reason or len(reason) > REASON_MAX or not reason.isprintable():
        raise InvalidInput(
            f"Give a reason of 1 to {REASON_MAX} printable characters.",
            fields={"reason": ["is empty, too long or not printable"]},
        )
    return reason


def person_for_recovery(
    actor: Principal, person: Person, doing: str
) -> tuple[Person, Authorization]:
    """Lock another person's account and return it with the decision that lets the actor recover it.

    Recovery gives an account's roles to the person who opens the link, so it requires the right to
    grant roles on the whole platform.
    """
    person = Person.objects.select_for_update(no_key=True).get(pk=person.pk)
    decision = authorize_binding(
        actor=actor,
        action=Action.PERSON_UPDATE,
        resource=person_resource(person),
        doing=f"{doing} of the account of {person.name}",
    )
    _require_at_large(actor, person, decision)
    if actor.person_id is None or actor.person_id == person.pk:
        raise NotPermitted(
            f"{actor.name} may not recover their own account.",
            hint="Two other administrators can.",
            attempt=recovery_attempt(actor, person, decision),
        )
    require_active(person)
    return person, decision


def _require_at_large(actor: Principal, person: Person, decision: Authorization) -> None:
    grants = decide(active_policy(), actor, Action.ROLE_GRANT, PEOPLE_AT_LARGE, base_context())
    if not grants.allowed:
        raise NotPermitted(
            f"{actor.name} may not recover accounts; that needs the right to grant roles on the "
            "whole platform.",
            hint="A platform administrator can.",
            attempt=recovery_attempt(actor, person, decision),
        )


def require_active(person: Person) -> None:
    """Raise WrongState unless the account is active."""
    if not person.is_active:
        raise WrongState(
            f"The account of {person.name} is inactive; its sign-in cannot be reset.",
            hint="Reactivate the account first.",
        )


def recovery_attempt(actor: Principal, person: Person, decision: Authorization) -> Attempt:
    """Return the attempt to recover an account, for the error that refuses it."""
    return Attempt(
        actor=actor,
        action=Action.PERSON_UPDATE,
        subject=recovery_subject(person),
        decision=decision,
    )
