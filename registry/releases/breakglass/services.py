"""Breaking the glass: two persons let a release serve before its review has decided, for some
hours, and a third one says afterward whether that was right.

An emergency excuses the wait for the review, never what is served: bytes, origin, recall and
incidents are checked as always, when it is requested, confirmed, deployed and loaded.
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.audit.services import Attempt, audit_record
from governance.errors import DomainError, InvalidInput, NotPermitted
from governance.people.credentials import makers_of
from governance.people.models import Person
from governance.people.proof import proof_facts, require_proof
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal, service_principal
from governance.reviews.reminders.schedule import emergency_tell
from governance.rowsecurity import lifted
from registry.releases.breakglass.checks import (
    CONFIRM_WITHIN,
    check_none_open,
    check_possible,
    check_requested,
    check_same_dossier,
    separation,
)
from registry.releases.breakglass.models import (
    LESSONS_MAX,
    REASON_MAX,
    AfterVerdict,
    BreakGlass,
    BreakGlassState,
)
from registry.releases.breakglass.selectors import break_glass_get
from registry.releases.breakglass.states import (
    REVIEW_WITHIN,
    break_glass_close,
    break_glass_lapse,
    break_glass_locked,
    break_glass_set_state,
    break_glass_subject,
)
from registry.releases.models import Release
from registry.releases.selectors import release_get
from registry.releases.states import release_locked, releases_changed
from registry.resources import acting_person, release_resource
from registry.validation import checked_choice, checked_text

_LEAST = timedelta(hours=1)


def break_glass_request(
    *, actor: Principal, release_id: int, reason: str, hours: int
) -> BreakGlass:
    """Ask that a release under review may serve for some hours before its review has decided.
    Nothing serves until a second person has confirmed it.

    Raises:
        InvalidInput: no reason, or more hours than the setting allows.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it is not under review, is requested or in force already, its bytes, origin,
            recall or an incident forbid it, or the department has an overdue review afterward.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    most = settings.BREAK_GLASS_MAX_HOURS
    if not 1 <= hours <= most:
        sentence = f"A break-glass lasts 1 to {most} hours, not {hours}."
        raise InvalidInput(sentence, fields={"hours": [sentence]})
    with transaction.atomic():
        release_get(actor=actor, id=release_id)
        release = release_locked(release_id)
        decision = authorize(
            actor=actor, action=Action.RELEASE_BREAK_GLASS, resource=release_resource(release)
        )
        person = acting_person(actor)
        with lifted():
            review = check_possible(release)
            check_none_open(release)
            now = timezone.now()
            glass = BreakGlass.objects.create(
                release=release,
                department=release.department,
                dossier_digest=release.dossier_digest,
                reason=reason,
                hours=hours,
                excluded_people=sorted(
                    {*review.excluded_people, release.submitted_by_id, *makers_of({person.pk})}
                ),
                asked_by=person,
                asked_at=now,
            )
            audit_record(
                actor=actor,
                action="break_glass:requested",
                subject=break_glass_subject(glass),
                reason=reason,
                department=release.department.slug,
                data={"release": release.pk, "dossier": release.dossier_digest, "hours": hours},
                decision=decision,
            )
    return glass


def break_glass_confirm(*, actor: Principal, break_glass_id: int) -> BreakGlass:
    """As the second person, let it serve from now on, until its hours are over.

    Raises:
        NotFound, NotPermitted: the policy refuses, whoever asked or had a part in what is released
            would confirm, or there is no fresh second factor.
        WrongState: it was requested more than an hour ago, is no longer requested, or may not be
            requested any more.
    """
    with transaction.atomic():
        release, glass, person, decision = _held(
            actor, break_glass_id, Action.RELEASE_BREAK_GLASS_CONFIRM
        )
        attempt = _attempt(actor, glass, Action.RELEASE_BREAK_GLASS_CONFIRM, decision)
        with lifted():
            check_requested(glass)
            review = check_possible(release)
            glass.excluded_people = sorted({*glass.excluded_people, *review.excluded_people})
        if obstacle := _separated(actor, person, glass, "confirm", attempt):
            raise obstacle
        proof = require_proof(actor, f"confirming break-glass {glass.pk}", attempt=attempt)
        with lifted():
            check_same_dossier(release, glass)
            now = timezone.now()
            glass.confirmed_by = person
            glass.confirmed_at = now
            glass.proof = proof.method
            glass.ends_at = now + timedelta(hours=glass.hours)
            due = min(glass.ends_at + REVIEW_WITHIN, review.due_at)
            glass.due_at = max(due, glass.ends_at + _LEAST)
            break_glass_set_state(
                actor=actor,
                glass=glass,
                state=BreakGlassState.ACTIVE,
                reason=glass.reason,
                decision=decision,
                data={"ends_at": glass.ends_at.isoformat(), **proof_facts(proof)},
            )
            emergency_tell(actor=actor, review=review)
        releases_changed()
    return glass


def break_glass_refuse(*, actor: Principal, break_glass_id: int, reason: str) -> BreakGlass:
    """Refuse a request; its requester withdraws it the same way.

    Raises:
        InvalidInput: no reason, or one over 1,000 characters.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it is no longer requested.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    with transaction.atomic():
        seen = break_glass_get(actor=actor, id=break_glass_id)
        mine = actor.person_id is not None and seen.asked_by_id == actor.person_id
        action = Action.RELEASE_BREAK_GLASS if mine else Action.RELEASE_BREAK_GLASS_CONFIRM
        _, glass, _, decision = _held(actor, break_glass_id, action)
        with lifted():
            break_glass_set_state(
                actor=actor,
                glass=glass,
                state=BreakGlassState.REFUSED,
                reason=reason,
                decision=decision,
            )
    return glass


def break_glass_end(*, actor: Principal, break_glass_id: int, reason: str) -> BreakGlass:
    """End it before its time: what serves under it stops.

    Raises:
        InvalidInput: no reason, or one over 1,000 characters.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it is not in force.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    with transaction.atomic():
        _, glass, _, decision = _held(actor, break_glass_id, Action.RELEASE_BREAK_GLASS_CONFIRM)
        with lifted():
            break_glass_close(actor=actor, glass=glass, reason=reason, decision=decision)
        releases_changed()
    return glass


def break_glass_review(
    *, actor: Principal, break_glass_id: int, verdict: str, lessons: str
) -> BreakGlass:
    """Say afterward whether it was justified, and what follows from it.

    Raises:
        InvalidInput: an unknown verdict, or no lessons.
        NotFound, NotPermitted: the policy refuses, whoever asked or confirmed would review it, or
            there is no fresh second factor.
        WrongState: it has not ended, or is reviewed.
    """
    checked_choice(verdict, list(AfterVerdict.values), field="verdict")
    lessons = checked_text(lessons, field="lessons", limit=LESSONS_MAX)
    with transaction.atomic():
        _, glass, person, decision = _held(actor, break_glass_id, Action.RELEASE_DECIDE)
        attempt = _attempt(actor, glass, Action.RELEASE_DECIDE, decision)
        if obstacle := _separated(actor, person, glass, "review", attempt):
            raise obstacle
        proof = require_proof(actor, f"reviewing break-glass {glass.pk}", attempt=attempt)
        with lifted():
            glass.reviewed_by = person
            glass.reviewed_at = timezone.now()
            glass.verdict = verdict
            glass.lessons = lessons
            break_glass_set_state(
                actor=actor,
                glass=glass,
                state=BreakGlassState.REVIEWED,
                reason=lessons[:REASON_MAX],
                decision=decision,
                data={"verdict": verdict, **proof_facts(proof)},
            )
    return glass


def break_glasses_end_due() -> int:
    """Move what is over to `ended`, and what was not confirmed within an hour to `lapsed`; returns
    how many. `release_servable` refuses from the moment itself; this makes it visible."""
    now = timezone.now()
    controller = service_principal("controller")
    with transaction.atomic():
        rows = BreakGlass.objects.select_for_update(of=("self",), skip_locked=True)
        rows = rows.select_related("department").order_by("pk")
        over = list(rows.filter(state=BreakGlassState.ACTIVE, ends_at__lte=now))
        for glass in over:
            reason = f"Its {glass.hours} hours are over."
            break_glass_close(actor=controller, glass=glass, reason=reason, at=glass.ends_at)
        late = list(
            rows.filter(state=BreakGlassState.REQUESTED, asked_at__lte=now - CONFIRM_WITHIN)
        )
        for glass in late:
            break_glass_lapse(controller, glass)
        if over:
            releases_changed()
    return len(over) + len(late)


def _held(
    actor: Principal, break_glass_id: int, action: Action
) -> tuple[Release, BreakGlass, Person, Authorization]:
    """Lock the release and then the break-glass, for a person whom the policy permits."""
    seen = break_glass_get(actor=actor, id=break_glass_id)
    release = release_locked(seen.release_id)
    decision = authorize(actor=actor, action=action, resource=release_resource(release))
    person = acting_person(actor)
    with lifted():
        return release, break_glass_locked(break_glass_id), person, decision


def _separated(
    actor: Principal, person: Person, glass: BreakGlass, doing: str, attempt: Attempt
) -> DomainError | None:
    why = separation(glass, person.pk, doing)
    if not why:
        return None
    return NotPermitted(
        f"Separation of duties: {actor.name} {why}.",
        code="separation_of_duties",
        hint="A person who had no part in it must do this.",
        attempt=attempt,
    )


def _attempt(
    actor: Principal, glass: BreakGlass, action: Action, decision: Authorization | None
) -> Attempt:
    return Attempt(
        actor=actor,
        action=action.value,
        subject=break_glass_subject(glass),
        department=glass.department.slug,
        decision=decision,
    )
