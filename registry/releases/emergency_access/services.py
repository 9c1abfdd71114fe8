"""Emergency access: two persons let a release serve for some hours before its review is decided,
and a third one reviews afterward whether that was justified.

An emergency only replaces the wait for the review: bytes, origin, recall and incidents are checked
as always, when it is requested, confirmed, deployed and loaded.
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.audit.services import Attempt, audit_record
from governance.english import counted
from governance.errors import DomainError, InvalidInput, NotPermitted
from governance.people.credentials import sign_in_admins_of
from governance.people.models import Person
from governance.people.proof import proof_facts, require_proof
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal, service_principal
from governance.reviews.reminders.schedule import emergency_tell
from governance.rowsecurity import lifted
from registry.releases.emergency_access.checks import (
    CONFIRM_WITHIN,
    check_none_open,
    check_possible,
    check_requested,
    check_same_dossier,
    separation,
)
from registry.releases.emergency_access.models import (
    LESSONS_MAX,
    REASON_MAX,
    AfterVerdict,
    EmergencyAccess,
    EmergencyAccessState,
)
from registry.releases.emergency_access.selectors import emergency_access_get
from registry.releases.emergency_access.states import (
    REVIEW_WITHIN,
    emergency_access_close,
    emergency_access_lapse,
    emergency_access_locked,
    emergency_access_set_state,
    emergency_access_subject,
)
from registry.releases.models import Release
from registry.releases.selectors import release_get
from registry.releases.states import release_locked, releases_changed
from registry.resources import acting_person, release_resource
from registry.validation import checked_choice, checked_text

_LEAST = timedelta(hours=1)


def emergency_access_request(
    *, actor: Principal, release_id: int, reason: str, hours: int
) -> EmergencyAccess:
    """Request that a release under review may serve for some hours before its review is decided.
    It may not serve until a second person confirms that.

    Raises:
        InvalidInput: no reason, or more hours than the setting allows.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it is not under review, has a request or access in force already, its bytes,
            origin, recall or an incident forbid it, or the department has an overdue review.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    limit = settings.EMERGENCY_ACCESS_MAX_HOURS
    if not 1 <= hours <= limit:
        sentence = f"Emergency access lasts 1 to {limit} hours, not {hours}."
        raise InvalidInput(sentence, fields={"hours": [sentence]})
    with transaction.atomic():
        release_get(actor=actor, id=release_id)
        release = release_locked(release_id)
        decision = authorize(
            actor=actor, action=Action.RELEASE_EMERGENCY_ACCESS, resource=release_resource(release)
        )
        person = acting_person(actor)
        with lifted():
            review = check_possible(release)
            check_none_open(release)
            now = timezone.now()
            emergency = EmergencyAccess.objects.create(
                release=release,
                department=release.department,
                dossier_digest=release.dossier_digest,
                reason=reason,
                hours=hours,
                excluded_people=sorted(
                    {
                        *review.excluded_people,
                        release.submitted_by_id,
                        *sign_in_admins_of({person.pk}),
                    }
                ),
                asked_by=person,
                asked_at=now,
            )
            audit_record(
                actor=actor,
                action="emergency_access:requested",
                subject=emergency_access_subject(emergency),
                reason=reason,
                department=release.department.slug,
                data={"release": release.pk, "dossier": release.dossier_digest, "hours": hours},
                decision=decision,
            )
    return emergency


def emergency_access_confirm(*, actor: Principal, emergency_access_id: int) -> EmergencyAccess:
    """Confirm as the second person: the release may serve from now until the hours are over.

    Raises:
        NotFound, NotPermitted: the policy refuses, the actor requested it or had a part in the
            release, or the second factor is not recent.
        WrongState: it was requested more than an hour ago, is no longer requested, or is no longer
            possible.
    """
    with transaction.atomic():
        release, emergency, person, decision = _locked_access(
            actor, emergency_access_id, Action.RELEASE_EMERGENCY_ACCESS_CONFIRM
        )
        attempt = _attempt(actor, emergency, Action.RELEASE_EMERGENCY_ACCESS_CONFIRM, decision)
        with lifted():
            check_requested(emergency)
            review = check_possible(release)
            emergency.excluded_people = sorted(
                {*emergency.excluded_people, *review.excluded_people}
            )
        if obstacle := _separated(actor, person, emergency, "confirm", attempt):
            raise obstacle
        proof = require_proof(actor, f"confirming emergency access {emergency.pk}", attempt=attempt)
        with lifted():
            check_same_dossier(release, emergency)
            now = timezone.now()
            emergency.confirmed_by = person
            emergency.confirmed_at = now
            emergency.proof = proof.method
            emergency.ends_at = now + timedelta(hours=emergency.hours)
            due = min(emergency.ends_at + REVIEW_WITHIN, review.due_at)
            emergency.due_at = max(due, emergency.ends_at + _LEAST)
            emergency_access_set_state(
                actor=actor,
                emergency=emergency,
                state=EmergencyAccessState.ACTIVE,
                reason=emergency.reason,
                decision=decision,
                data={"ends_at": emergency.ends_at.isoformat(), **proof_facts(proof)},
            )
            emergency_tell(actor=actor, review=review)
        releases_changed()
    return emergency


def emergency_access_refuse(
    *, actor: Principal, emergency_access_id: int, reason: str
) -> EmergencyAccess:
    """Refuse a request; its requester withdraws it the same way.

    Raises:
        InvalidInput: no reason, or one over 1,000 characters.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it is no longer requested.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    with transaction.atomic():
        visible = emergency_access_get(actor=actor, id=emergency_access_id)
        mine = actor.person_id is not None and visible.asked_by_id == actor.person_id
        action = (
            Action.RELEASE_EMERGENCY_ACCESS if mine else Action.RELEASE_EMERGENCY_ACCESS_CONFIRM
        )
        _, emergency, _, decision = _locked_access(actor, emergency_access_id, action)
        with lifted():
            emergency_access_set_state(
                actor=actor,
                emergency=emergency,
                state=EmergencyAccessState.REFUSED,
                reason=reason,
                decision=decision,
            )
    return emergency


def emergency_access_end(
    *, actor: Principal, emergency_access_id: int, reason: str
) -> EmergencyAccess:
    """End it early, which stops serving under it.

    Raises:
        InvalidInput: no reason, or one over 1,000 characters.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it is not in force.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    with transaction.atomic():
        _, emergency, _, decision = _locked_access(
            actor, emergency_access_id, Action.RELEASE_EMERGENCY_ACCESS_CONFIRM
        )
        with lifted():
            emergency_access_close(
                actor=actor, emergency=emergency, reason=reason, decision=decision
            )
        releases_changed()
    return emergency


def emergency_access_review(
    *, actor: Principal, emergency_access_id: int, verdict: str, lessons: str
) -> EmergencyAccess:
    """Record afterward whether it was justified, and the follow-up.

    Raises:
        InvalidInput: an unknown verdict, or no lessons.
        NotFound, NotPermitted: the policy refuses, the actor requested or confirmed it, or the
            second factor is not recent.
        WrongState: it has not ended, or is reviewed.
    """
    checked_choice(verdict, list(AfterVerdict.values), field="verdict")
    lessons = checked_text(lessons, field="lessons", limit=LESSONS_MAX)
    with transaction.atomic():
        _, emergency, person, decision = _locked_access(
            actor, emergency_access_id, Action.RELEASE_DECIDE
        )
        attempt = _attempt(actor, emergency, Action.RELEASE_DECIDE, decision)
        if obstacle := _separated(actor, person, emergency, "review", attempt):
            raise obstacle
        proof = require_proof(actor, f"reviewing emergency access {emergency.pk}", attempt=attempt)
        with lifted():
            emergency.reviewed_by = person
            emergency.reviewed_at = timezone.now()
            emergency.verdict = verdict
            emergency.lessons = lessons
            emergency_access_set_state(
                actor=actor,
                emergency=emergency,
                state=EmergencyAccessState.REVIEWED,
                reason=lessons[:REASON_MAX],
                decision=decision,
                data={"verdict": verdict, **proof_facts(proof)},
            )
    return emergency


def emergency_accesses_end_due() -> int:
    """Move access whose time is over to `ended`, and requests not confirmed within an hour to
    `lapsed`; return their number. `release_servable` refuses in time even before this runs."""
    now = timezone.now()
    controller = service_principal("controller")
    with transaction.atomic():
        rows = EmergencyAccess.objects.select_for_update(of=("self",), skip_locked=True)
        rows = rows.select_related("department").order_by("pk")
        over = list(rows.filter(state=EmergencyAccessState.ACTIVE, ends_at__lte=now))
        for emergency in over:
            reason = f"Its {counted(emergency.hours, 'hour')} ended."
            emergency_access_close(
                actor=controller, emergency=emergency, reason=reason, at=emergency.ends_at
            )
        late = list(
            rows.filter(state=EmergencyAccessState.REQUESTED, asked_at__lte=now - CONFIRM_WITHIN)
        )
        for emergency in late:
            emergency_access_lapse(controller, emergency)
        if over:
            releases_changed()
    return len(over) + len(late)


def _locked_access(
    actor: Principal, emergency_access_id: int, action: Action
) -> tuple[Release, EmergencyAccess, Person, Authorization]:
    """Lock the release, then its emergency access, for a person whom the policy permits."""
    visible = emergency_access_get(actor=actor, id=emergency_access_id)
    release = release_locked(visible.release_id)
    decision = authorize(actor=actor, action=action, resource=release_resource(release))
    person = acting_person(actor)
    with lifted():
        return release, emergency_access_locked(emergency_access_id), person, decision


def _separated(
    actor: Principal, person: Person, emergency: EmergencyAccess, doing: str, attempt: Attempt
) -> DomainError | None:
    why = separation(emergency, person.pk, doing)
    if not why:
        return None
    return NotPermitted(
        f"Separation of duties: {actor.name} {why}.",
        code="separation_of_duties",
        hint="A person who had no part in it must do this.",
        attempt=attempt,
    )


def _attempt(
    actor: Principal, emergency: EmergencyAccess, action: Action, decision: Authorization | None
) -> Attempt:
    return Attempt(
        actor=actor,
        action=action.value,
        subject=emergency_access_subject(emergency),
        department=emergency.department.slug,
        decision=decision,
    )
