"""Due reminders: each is recorded once, with its recipients."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from governance.audit.services import audit_record
from governance.people.models import Person, Role
from governance.people.selectors import administrators, principal_for_person
from governance.principals import Principal, background, service_principal
from governance.reviews.absences.models import Absence
from governance.reviews.inbox import WAITING, missing_specialties, reviews_awaiting
from governance.reviews.models import Review, ReviewState
from governance.reviews.policies.selectors import policy_document
from governance.reviews.reminders.models import Channel, ReminderKind, ReviewNotice, ReviewReminder
from governance.reviews.states import review_locked, review_subject

# Days before the due time, for a review without a review policy.
EARLY_DAYS = 3
LATE = timedelta(days=1)
# Review policies cannot set an earlier reminder.
FARTHEST = timedelta(days=60)
BATCH = 200
PEOPLE_MAX = 100
_ACTIONS = {
    ReminderKind.EARLY: "review:remind",
    ReminderKind.LATE: "review:remind",
    ReminderKind.OVERDUE: "review:remind",
    ReminderKind.ESCALATED: "review:escalate",
    ReminderKind.EMERGENCY: "review:escalate",
}


def reminders_record_due() -> int:
    """Record all due reminders with their notices; returns the number of reminders.

    If several reminders of a review are due, as after an outage, only the last one is recorded. Two
    processes at once record each reminder once.
    """
    now, count = timezone.now(), 0
    done = ReviewReminder.objects.filter(review=OuterRef("pk"), kind=ReminderKind.ESCALATED)
    waiting = Review.objects.filter(
        ~Exists(done), state__in=WAITING, due_at__lte=now + FARTHEST
    ).select_related("review_policy")
    # Check all waiting reviews: many with reminders may come before one without.
    for review in waiting.prefetch_related("reminders").order_by("due_at").iterator(BATCH):
        if _kinds_due(review, now):
            count += _record(review.pk, now)
    return count


def moments(review: Review) -> list[tuple[datetime, ReminderKind]]:
    """Return the times of a review's reminders, in order; none before it was opened."""
    policy = review.review_policy
    days = EARLY_DAYS if policy is None else policy_document(policy).escalate_days
    at = [
        (review.due_at - timedelta(days=days), ReminderKind.EARLY),
        (review.due_at - LATE, ReminderKind.LATE),
        (review.due_at, ReminderKind.OVERDUE),
    ]
    # Leave out an early reminder that would not come before the late one.
    at = [each for each in at[:1] if each[0] < at[1][0]] + at[1:]
    return [each for each in at if each[0] > review.opened_at]


def _kinds_due(review: Review, now: datetime) -> list[ReminderKind]:
    """Return the kinds of reminders to record now."""
    recorded = {reminder.kind for reminder in review.reminders.all()}
    past = [kind for at, kind in moments(review) if at <= now]
    due = past[-1:]
    if due == [ReminderKind.OVERDUE]:
        due.append(ReminderKind.ESCALATED)
    return [kind for kind in due if kind not in recorded]


def _record(review_id: int, now: datetime) -> int:
    controller = service_principal("controller")
    with transaction.atomic(), background(f"review-{review_id}", controller):
        review = review_locked(review_id)
        kinds = _kinds_due(review, now) if review.state in WAITING else []
        for kind in kinds:
            people = (
                administrators() if kind is ReminderKind.ESCALATED else reminder_recipients(review)
            )
            _tell(controller, review, kind, people)
    return len(kinds)


def emergency_tell(*, actor: Principal, review: Review) -> None:
    """Notify administrators and the department's leads that the subject serves before its review is
    decided, in the transaction that grants the emergency access.
    """
    leads = Person.objects.filter(
        is_active=True,
        role_assignments__role=Role.LEAD,
        role_assignments__department=review.department,
    )
    people = {person.pk: person for person in (*administrators(), *leads[:PEOPLE_MAX])}
    _tell(actor, review, ReminderKind.EMERGENCY, list(people.values()))


def people_tell(*, review: Review, kind: ReminderKind, people: list[Person]) -> list[str]:
    """Queue a notice to each person; returns the channels, for the caller's audit event."""
    reminder = ReviewReminder.objects.create(
        review=review, kind=kind, people=[person.pk for person in people]
    )
    notices = _notices(reminder, people)
    ReviewNotice.objects.bulk_create(notices)
    return sorted({notice.channel for notice in notices})


def _tell(actor: Principal, review: Review, kind: ReminderKind, people: list[Person]) -> None:
    channels = people_tell(review=review, kind=kind, people=people)
    audit_record(
        actor=actor,
        action=_ACTIONS[kind],
        subject=review_subject(review),
        department=review.department.slug,
        data={
            "kind": kind.value,
            "due_at": review.due_at.isoformat(),
            "people": [person.pk for person in people],
            "channels": channels,
        },
        policy_version=review.policy_version,
    )


def _notices(reminder: ReviewReminder, people: list[Person]) -> list[ReviewNotice]:
    notices, now = [], timezone.now()
    if settings.MAIL_SERVER is not None:
        notices += [
            ReviewNotice(reminder=reminder, channel=Channel.MAIL, person=person, next_at=now)
            for person in people
            if person.email
        ]
    if settings.REVIEW_WEBHOOK is not None:
        notices.append(ReviewNotice(reminder=reminder, channel=Channel.WEBHOOK, next_at=now))
    return notices


def reminder_recipients(review: Review) -> list[Person]:
    """Return the recipients of a reminder: reviewers who may decide and are not away; or, while
    changes are requested, the person who submitted the review.
    """
    if review.state == ReviewState.CHANGES_REQUESTED:
        return [review.opened_by] if review.opened_by.is_active else []
    lacking = missing_specialties([review])[review.pk]
    now = timezone.now()
    away = Absence.objects.filter(
        person=OuterRef("pk"),
        specialty__in=lacking,
        starts_at__lte=now,
        ends_at__gt=now,
        ended_at__isnull=True,
    )
    reviewers = (
        Person.objects.filter(~Exists(away), is_active=True, role_assignments__role=Role.REVIEWER)
        .exclude(pk__in=[*review.excluded_people, review.opened_by_id])
        .distinct()
        .order_by("pk")
    )
    recipients = []
    for person in reviewers[: PEOPLE_MAX * 5]:
        # The inbox considers policy, separation of duties, votes and deputies.
        if reviews_awaiting(principal_for_person(person)).filter(pk=review.pk).exists():
            recipients.append(person)
        if len(recipients) == PEOPLE_MAX:
            break
    return recipients
