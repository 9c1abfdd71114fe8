"""Waivers: request, decide, withdraw, revoke and expire."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from governance.audit.services import audit_record
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal, background, service_principal
from governance.reviews.models import MET_STATES, Verdict
from governance.reviews.selectors import review_resource, separation_obstacle, speaker_id
from governance.reviews.states import review_locked, review_subject
from governance.reviews.texts import text_checked
from governance.reviews.waivers.models import REASON_MAX, Waiver, WaiverState
from governance.reviews.waivers.selectors import (
    decision_obstacle,
    proof_for,
    request_obstacle,
)
from governance.reviews.waivers.states import (
    excused_result,
    waiver_event_data,
    waiver_locked,
    waiver_set_state,
)

LONGEST = timedelta(days=366)
EXPIRE_BATCH = 100


def waiver_request(
    *, actor: Principal, review_id: int, code: str, reason: str, expires_at: datetime
) -> Waiver:
    """Request a waiver of an unmet checklist item until `expires_at`.

    Raises:
        InvalidInput: no reason, or an end that is past or more than a year away.
        NotFound, NotPermitted: the item does not exist, or the policy denies it to the actor.
        WrongState: the review is not open, or the item is met, cannot be waived, or already has a
            requested or granted waiver.
    """
    reason = text_checked(reason, "reason", REASON_MAX)
    if not timezone.now() < expires_at <= timezone.now() + LONGEST:
        raise InvalidInput(
            f"A waiver ends in the future, within {LONGEST.days} days.",
            fields={"expires_at": [f"Within {LONGEST.days} days from now."]},
        )
    with transaction.atomic():
        review = review_locked(review_id)
        decision = authorize(
            actor=actor, action=Action.WAIVER_REQUEST, resource=review_resource(review)
        )
        item = None if "\x00" in code else review.checklist.filter(code=code).first()
        if item is None:
            raise NotFound(
                f"The checklist of review {review.pk} of {review.subject_name} has no item "
                f"{code[:60]}."
            )
        obstacle = request_obstacle(actor, review, item)
        if obstacle is not None:
            raise obstacle
        waiver = Waiver.objects.create(
            review=review,
            item=item,
            digest=review.digest,
            round=review.round,
            excused=excused_result(item),
            reason=reason,
            expires_at=expires_at,
            asked_by_id=speaker_id(actor),
        )
        audit_record(
            actor=actor,
            action=Action.WAIVER_REQUEST,
            subject=review_subject(review),
            reason=reason,
            department=review.department.slug,
            data=waiver_event_data(waiver),
            decision=decision,
        )
    return waiver


def waiver_decide(*, actor: Principal, waiver_id: int, verdict: str, reason: str) -> Waiver:
    """Grant or refuse a waiver that another person requested.

    Raises:
        InvalidInput: an unknown verdict, or no reason.
        NotFound, NotPermitted: the policy or separation of duties forbids it, or the actor lacks
            the specialty or a fresh second factor.
        WrongState: it is decided or withdrawn, the review is not open, the item is now met, a
            reviewer has approved in this round, or the requested end is past.
    """
    if verdict not in (WaiverState.GRANTED, WaiverState.REFUSED):
        raise InvalidInput(
            f"A waiver is granted or refused, not {verdict[:40]}.",
            fields={"verdict": ["is granted or refused"]},
        )
    reason = text_checked(reason, "reason", REASON_MAX)
    with transaction.atomic():
        waiver = waiver_locked(waiver_id)
        obstacle = decision_obstacle(actor, waiver)
        if obstacle is not None:
            raise obstacle
        decision = authorize(
            actor=actor, action=Action.WAIVER_DECIDE, resource=review_resource(waiver.review)
        )
        if verdict == WaiverState.GRANTED:
            _check_grantable(waiver)
        waiver_set_state(
            actor=actor,
            waiver=waiver,
            state=WaiverState(verdict),
            reason=reason,
            decision=decision,
            proof=proof_for(actor, waiver),
        )
    return waiver


def _check_grantable(waiver: Waiver) -> None:
    refusal = f"The waiver of “{waiver.item.title}” cannot be granted"
    if waiver.item.state in MET_STATES:
        raise WrongState(f"{refusal}: the item is met.", hint="Refuse it.")
    review = waiver.review
    if review.decisions.filter(verdict=Verdict.APPROVE, round=review.round).exists():
        raise WrongState(
            f"{refusal}: a reviewer approved in round {review.round} of review {review.pk} without "
            "it.",
            hint="Request changes; after the answer, all reviewers see it when they decide.",
        )
    if waiver.expires_at <= timezone.now():
        raise WrongState(
            f"{refusal}: it would have ended on {waiver.expires_at:%Y-%m-%d %H:%M} UTC.",
            hint="Refuse it, and request a new one.",
        )


def waiver_withdraw(*, actor: Principal, waiver_id: int, reason: str) -> Waiver:
    """Withdraw one's own request before it is decided.

    Raises:
        InvalidInput: no reason.
        NotFound, NotPermitted: the policy denies it, or another person requested it.
        WrongState: it is already decided or withdrawn.
    """
    reason = text_checked(reason, "reason", REASON_MAX)
    with transaction.atomic():
        waiver = waiver_locked(waiver_id)
        decision = authorize(
            actor=actor, action=Action.WAIVER_REQUEST, resource=review_resource(waiver.review)
        )
        if speaker_id(actor) != waiver.asked_by_id:
            raise NotPermitted(
                f"{actor.name} did not request the waiver of “{waiver.item.title}” and may not "
                "withdraw it.",
                hint="Only its requester can withdraw it; a second person can refuse it.",
            )
        waiver_set_state(
            actor=actor,
            waiver=waiver,
            state=WaiverState.WITHDRAWN,
            reason=reason,
            decision=decision,
        )
    return waiver


def waiver_revoke(*, actor: Principal, waiver_id: int, reason: str) -> Waiver:
    """End a waiver early. Any reviewer may do this, because it only adds restrictions.

    Objects that were approved with it stop serving; the subject's own context enforces that.

    Raises:
        InvalidInput: no reason.
        NotFound, NotPermitted: the policy denies it, or the actor has no fresh second factor.
        WrongState: it is not granted, or has ended.
    """
    reason = text_checked(reason, "reason", REASON_MAX)
    with transaction.atomic():
        waiver = waiver_locked(waiver_id)
        review = waiver.review
        decision = authorize(
            actor=actor, action=Action.WAIVER_DECIDE, resource=review_resource(review)
        )
        obstacle = separation_obstacle(actor, review, "", Action.WAIVER_DECIDE)
        if obstacle is not None:
            raise obstacle
        waiver_set_state(
            actor=actor,
            waiver=waiver,
            state=WaiverState.REVOKED,
            reason=reason,
            decision=decision,
            proof=proof_for(actor, waiver),
        )
    return waiver


def waivers_expire_due() -> int:
    """Set granted waivers that are past their end to `expired`; returns their number.

    They stopped counting at their end; this makes it visible. Concurrent calls expire each once.
    """
    now = timezone.now()
    due = Waiver.objects.filter(state=WaiverState.GRANTED, expires_at__lte=now)
    controller, count = service_principal("controller"), 0
    for waiver_id in list(due.order_by("expires_at").values_list("pk", flat=True)[:EXPIRE_BATCH]):
        with transaction.atomic(), background(f"waiver-{waiver_id}", controller):
            waiver = waiver_locked(waiver_id)
            if waiver.state != WaiverState.GRANTED:
                continue
            waiver_set_state(
                actor=controller,
                waiver=waiver,
                state=WaiverState.EXPIRED,
                reason=f"Granted until {waiver.expires_at:%Y-%m-%d %H:%M} UTC.",
            )
            count += 1
    return count
