"""Content of notices: plain text for people, JSON for programs."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from django.conf import settings
from django.utils import timezone

from governance.reviews.inbox import missing_specialties
from governance.reviews.models import Review, ReviewState
from governance.reviews.reminders.models import ReminderKind, ReviewNotice

EVENTS = {
    ReminderKind.EARLY: "review.due_soon",
    ReminderKind.LATE: "review.due_soon",
    ReminderKind.OVERDUE: "review.overdue",
    ReminderKind.ESCALATED: "review.escalated",
    ReminderKind.EMERGENCY: "review.emergency",
    ReminderKind.ASSIGNED: "review.assigned",
    ReminderKind.MENTIONED: "review.mentioned",
}

# Notices to one person: the subject of the mail, and the reason that they get it.
_PERSONAL = {
    ReminderKind.ASSIGNED: ("Assigned to you", "the review was assigned to you"),
    ReminderKind.MENTIONED: ("You were mentioned", "a comment on the review mentions you"),
}


def address_of(review: Review) -> str:
    """Return the address of the review's page."""
    return f"{settings.PORTAL_URL}/reviews/{review.pk}"


def mail_subject(notice: ReviewNotice) -> str:
    """Return the subject of the mail, on one line."""
    review = notice.reminder.review
    name = " ".join(review.subject_name.split())[:120]
    if notice.reminder.kind == ReminderKind.EMERGENCY:
        return f"Emergency access, serving before its review has decided: {name}"
    if notice.reminder.kind == ReminderKind.ESCALATED:
        return f"Overdue and not decided: {name}"
    if notice.reminder.kind in _PERSONAL:
        return f"{_PERSONAL[ReminderKind(notice.reminder.kind)][0]}: {name}"
    return f"{_when(review)}: {name}"


def mail_text(notice: ReviewNotice) -> str:
    """Return the body of the mail. Its link grants no access: it leads to a page behind sign-in."""
    review = notice.reminder.review
    lines = [
        f"The review of {' '.join(review.subject_name.split())} {_is_due(review)}.",
        "",
        f"Department: {review.department.slug}",
        f"Tier:       {review.tier}",
        f"Round:      {review.round}",
        f"Waits for:  {_waits_for(review)}",
        "",
        address_of(review),
        "",
        _why(notice, review),
    ]
    return "\n".join(lines) + "\n"


def _when(review: Review) -> str:
    remaining = review.due_at - timezone.now()
    if remaining.total_seconds() <= 0:
        return "Overdue"
    days = -(-remaining.total_seconds() // 86_400)
    return "Due within a day" if days <= 1 else f"Due within {days:.0f} days"


def _is_due(review: Review) -> str:
    at = f"{review.due_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"was due on {at}" if review.due_at <= timezone.now() else f"is due on {at}"


def _waits_for(review: Review) -> str:
    if review.state == ReviewState.CHANGES_REQUESTED:
        return "the department's answer"
    lacking = missing_specialties([review])[review.pk]
    return f"approval for {', '.join(lacking)}" if lacking else "its checklist or open threads"


def _why(notice: ReviewNotice, review: Review) -> str:
    if notice.reminder.kind == ReminderKind.EMERGENCY:
        return (
            "Two people gave it emergency access. You get this because you are an administrator, "
            "or lead its department."
        )
    if notice.reminder.kind == ReminderKind.ESCALATED:
        return "You get this because you are an administrator."
    if notice.reminder.kind in _PERSONAL:
        return f"You get this because {_PERSONAL[ReminderKind(notice.reminder.kind)][1]}."
    if review.state == ReviewState.CHANGES_REQUESTED:
        return "You get this because you requested this release and changes were requested."
    return "You get this because you can still decide on it."


def webhook_body(notice: ReviewNotice) -> bytes:
    """Return one line of JSON. It does not name people; the audit log records the recipients."""
    reminder = notice.reminder
    review = reminder.review
    body: dict[str, Any] = {
        "event": EVENTS[ReminderKind(reminder.kind)],
        "delivery": notice.pk,
        "kind": reminder.kind,
        "told": len(reminder.people),
        "review": {
            "id": review.pk,
            "subject_type": review.subject_type,
            "subject_id": review.subject_id,
            "subject_name": review.subject_name,
            "department": review.department.slug,
            "tier": review.tier,
            "round": review.round,
            "state": review.state,
            "missing": missing_specialties([review])[review.pk],
            "opened_at": review.opened_at.isoformat(),
            "due_at": review.due_at.isoformat(),
            "url": address_of(review),
        },
    }
    return json.dumps(body, ensure_ascii=False, sort_keys=True).encode()
