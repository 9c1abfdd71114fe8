"""Approve recoveries, as another administrator or on the server."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.audit.streaming.sending import SendFailed
from governance.errors import NotFound, NotPermitted, Unavailable, WrongState
from governance.people.credentials import sign_in_admins_of
from governance.people.links import BOOTSTRAP, INVITE, RESET, link_mail, link_make
from governance.people.models import LinkPurpose, Person
from governance.people.recoveries.models import (
    LIVE,
    AccountRecovery,
    NoticeKind,
    RecoveryState,
)
from governance.people.recoveries.notices import account_tell
from governance.people.recoveries.selectors import (
    ADMINISTRATORS_MIN,
    administrators_able,
    never_set_up,
    recovery_get,
    recovery_wait,
)
from governance.people.recoveries.services import (
    PENDING_FOR,
    checked_reason,
    person_for_recovery,
    recoveries_end_expired,
    recovery_attempt,
    require_active,
)
from governance.people.recoveries.states import (
    RECOVERY_STATES,
    recovery_end,
    recovery_record,
    recovery_save_state,
)
from governance.people.selectors import PEOPLE_AT_LARGE, person_resource, principal_for_person
from governance.permissions import Action
from governance.policy.context import base_context
from governance.policy.decisions import Authorization
from governance.policy.engine import decide
from governance.policy.services import active_policy
from governance.principals import Principal


def recovery_approve(*, actor: Principal, recovery_id: int) -> tuple[AccountRecovery, str]:
    """Approve a recovery that another administrator requested.

    Returns the recovery and its link's address, which is shown only once; empty if it was mailed.

    Raises:
        NotFound, NotPermitted: as `recovery_request`; or the actor requested it, or set up the
            requester's account.
        WrongState: it is not pending, has expired, or the requester may no longer request it.
        Unavailable: the mail server rejected the link; the recovery was not approved.
    """
    with transaction.atomic():
        visible = recovery_get(actor=actor, recovery_id=recovery_id)
        person, decision = person_for_recovery(actor, visible.person, "approving a recovery")
        recovery = RECOVERY_STATES.locked(visible.pk)
        requester = recovery.requested_by
        if requester is None or actor.person_id in {
            requester.pk,
            *sign_in_admins_of({requester.pk}),
        }:
            raise NotPermitted(
                f"Separation of duties: {actor.name} requested recovery {recovery.pk} and may not "
                "approve it.",
                code="separation_of_duties",
                hint="Another administrator approves it.",
                attempt=recovery_attempt(actor, person, decision),
            )
        _require_current(recovery)
        recovery.approved_by_id = actor.person_id
        address = _approve(actor, recovery, timedelta(0), decision, mails=True)
    return recovery, address


def recovery_on_server(
    *, person_id: int, purpose: str = LinkPurpose.PASSWORD, reason: str = ""
) -> tuple[AccountRecovery, str]:
    """Approve an account's pending recovery from the server's command line. If no other
    administrator could request one, begin it too.

    It takes effect after `recovery_wait`.

    Raises:
        NotFound: the person does not exist.
        NotPermitted: two other administrators can recover the account.
        WrongState: the account is inactive, or no administrator has requested a recovery.
        Unavailable: the mail server rejected the link; the recovery was not approved.
    """
    with transaction.atomic():
        rows = Person.objects.select_for_update(no_key=True)
        person = rows.filter(pk=person_id).first()
        if person is None:
            raise NotFound(f"There is no person {person_id}.")
        require_active(person)
        recoveries_end_expired(person)
        able = administrators_able(other_than=person).count()
        if able >= ADMINISTRATORS_MIN:
            raise NotPermitted(
                f"{able} administrators can recover the account of {person.name} together; it "
                "cannot be recovered on the server.",
                hint="One administrator requests the recovery under People; another approves it.",
            )
        live = AccountRecovery.objects.filter(person=person, state__in=LIVE).first()
        recovery = None if live is None else RECOVERY_STATES.locked(live.pk)
        if recovery is not None and recovery.state == RecoveryState.APPROVED and not able:
            recovery_end(
                actor=BOOTSTRAP,
                recovery=recovery,
                state=RecoveryState.REJECTED,
                reason="A new link replaces it.",
            )
            recovery = None
        if recovery is None:
            if able:
                raise WrongState(
                    f"No administrator has requested a recovery of the account of {person.name}.",
                    hint="An administrator requests it under People → the person → Sign-in, then "
                    "run this command again.",
                )
            recovery = AccountRecovery.objects.create(
                person=person,
                purpose=purpose,
                reason=checked_reason(reason or "On the server: no other administrator can."),
                expires_at=timezone.now() + PENDING_FOR,
                pepper_version=max(settings.KEY_PEPPERS),
            )
            recovery_record(actor=BOOTSTRAP, recovery=recovery, state=RecoveryState.PENDING)
        recovery.on_server = True
        # Print the first administrator's link: a new installation may have no mail server yet.
        mails = bool(able) or not never_set_up(person)
        address = _approve(BOOTSTRAP, recovery, recovery_wait(person), None, mails=mails)
    return recovery, address


def _require_current(recovery: AccountRecovery) -> None:
    """Raise WrongState if it has expired, or its requester may no longer recover accounts."""
    if recovery.state != RecoveryState.PENDING or recovery.requested_by is None:
        return  # The state machine raises a more specific error.
    if recovery.expires_at <= timezone.now():
        raise WrongState(
            f"Recovery {recovery.pk} has expired; it cannot be approved.", hint="Request it again."
        )
    requester = principal_for_person(recovery.requested_by)
    resource = person_resource(recovery.person)
    needed = ((Action.PERSON_UPDATE, resource), (Action.ROLE_GRANT, PEOPLE_AT_LARGE))
    policy = active_policy()
    if not all(decide(policy, requester, *pair, base_context()).allowed for pair in needed):
        raise WrongState(
            f"{requester.name}, who requested it, may no longer recover accounts; recovery "
            f"{recovery.pk} cannot be approved.",
            hint="Reject it, and request it again.",
        )


def _approve(
    actor: Principal,
    recovery: AccountRecovery,
    wait: timedelta,
    decision: Authorization | None,
    *,
    mails: bool,
) -> str:
    """Approve a locked recovery and make its link; return the link's address unless mailed."""
    now = timezone.now()
    recovery.approved_at, recovery.effective_at = now, now + wait
    recovery_save_state(
        actor=actor,
        recovery=recovery,
        state=RecoveryState.APPROVED,
        fields=["approved_by", "on_server", "approved_at", "effective_at"],
        data={"effective_at": recovery.effective_at.isoformat(timespec="seconds")},
        decision=decision,
    )
    purpose = LinkPurpose(recovery.purpose)
    has_password = recovery.person.has_usable_password()
    link, address = link_make(
        actor=actor,
        person=recovery.person,
        purpose=purpose,
        action=RESET if has_password else INVITE,
        decision=decision,
        recovery=recovery,
    )
    recovery.expires_at = link.expires_at
    recovery.save(update_fields=["expires_at"])
    account_tell(NoticeKind.APPROVED, recovery.person, recovery=recovery)
    if (server := settings.MAIL_SERVER) is None or not mails:
        return address
    try:
        # Mail before the commit: if the person does not get the link, the approval is rolled back.
        link_mail(server, link, address)
    except SendFailed as error:
        raise Unavailable(
            f"The link could not be mailed: {error.words} Recovery {recovery.pk} is not approved.",
            hint="Approve it again when the mail server works.",
        ) from error
    return ""
