"""Breaking the glass: two persons let a release serve before its review has decided, for some
hours, and a third one says afterwards whether that was right.

An emergency excuses the wait for the review, never what is served: bytes, origin, recall and
incidents are checked as ever, when it is asked for, confirmed, deployed and loaded.
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.audit.services import Attempt, audit_record
from governance.errors import DomainError, InvalidInput, NotPermitted, WrongState
from governance.people.models import Person
from governance.people.proof import proof_facts, require_proof
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal, service_principal
from governance.reviews.models import Review
from governance.reviews.reminders.schedule import emergency_tell
from governance.rowsecurity import lifted
from registry.incidents.reach import check_not_suspended
from registry.releases.breakglass.force import UNDER_REVIEW
from registry.releases.breakglass.models import AfterVerdict, BreakGlass, BreakGlassState
from registry.releases.breakglass.selectors import break_glass_get, overdue_review
from registry.releases.breakglass.states import (
    REVIEW_WITHIN,
    break_glass_close,
    break_glass_locked,
    break_glass_set_state,
    break_glass_subject,
)
from registry.releases.checklist import files_match, origin_signed
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_get, release_review
from registry.releases.serving import check_dossier, check_trusted
from registry.releases.states import release_locked, releases_changed
from registry.resources import acting_person, release_resource
from registry.validation import checked_choice, checked_text
from registry.versions.selectors import base_chain

REASON_MAX = 1000
LESSONS_MAX = 4000
CONFIRM_WITHIN = timedelta(hours=1)
_LEAST = timedelta(hours=1)


def break_glass_request(
    *, actor: Principal, release_id: int, reason: str, hours: int
) -> BreakGlass:
    """Ask that a release under review may serve for some hours before its review has decided.
    Nothing serves until a second person has confirmed it.

    Raises:
        InvalidInput: no reason, or more hours than the setting allows.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it is not under review, is asked for or in force already, its bytes, origin,
            recall or an incident forbid it, or the department has an overdue review afterwards.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    most = settings.BREAK_GLASS_MAX_HOURS
    if not 1 <= hours <= most:
        sentence = f"A break-glass lasts 1 to {most} hours; {hours} were asked for."
        raise InvalidInput(sentence, fields={"hours": [sentence]})
    with transaction.atomic():
        release_get(actor=actor, id=release_id)
        release = release_locked(release_id)
        decision = authorize(
            actor=actor, action=Action.RELEASE_BREAK_GLASS, resource=release_resource(release)
        )
        person = acting_person(actor)
        with lifted():
            review = _check_possible(release)
            _check_none_open(release)
            now = timezone.now()
            glass = BreakGlass.objects.create(
                release=release,
                department=release.department,
                dossier_digest=release.dossier_digest,
                reason=reason,
                hours=hours,
                excluded_people=sorted({*review.excluded_people, release.submitted_by_id}),
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
                policy_version=decision.policy_version,
            )
    return glass


def break_glass_confirm(*, actor: Principal, break_glass_id: int) -> BreakGlass:
    """As the second person, let it serve from now on, until its hours are over.

    Raises:
        NotFound, NotPermitted: the policy refuses, whoever asked or had a part in what is released
            would confirm, or there is no fresh second factor.
        WrongState: it was asked for more than an hour ago, is no longer asked for, or what forbids
            asking forbids it now.
    """
    with transaction.atomic():
        release, glass, person, policy_version = _held(
            actor, break_glass_id, Action.RELEASE_BREAK_GLASS_CONFIRM
        )
        attempt = _attempt(actor, glass, Action.RELEASE_BREAK_GLASS_CONFIRM, policy_version)
        with lifted():
            _check_requested(glass)
            review = _check_possible(release)
            glass.excluded_people = sorted({*glass.excluded_people, *review.excluded_people})
        if obstacle := _separated(actor, person, glass, "confirm", attempt):
            raise obstacle
        proof = require_proof(actor, f"confirming break-glass {glass.pk}", attempt=attempt)
        with lifted():
            _check_same_dossier(release, glass)
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
                policy_version=policy_version,
                data={"ends_at": glass.ends_at.isoformat(), **proof_facts(proof)},
            )
            emergency_tell(actor=actor, review=review)
        releases_changed()
    return glass


def break_glass_refuse(*, actor: Principal, break_glass_id: int, reason: str) -> BreakGlass:
    """Refuse what is asked for; whoever asked takes it back so.

    Raises:
        InvalidInput: no reason, or one over 1,000 characters.
        NotFound, NotPermitted: the policy refuses.
        WrongState: it is not asked for any more.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    with transaction.atomic():
        seen = break_glass_get(actor=actor, id=break_glass_id)
        mine = actor.person_id is not None and seen.asked_by_id == actor.person_id
        action = Action.RELEASE_BREAK_GLASS if mine else Action.RELEASE_BREAK_GLASS_CONFIRM
        _, glass, _, policy_version = _held(actor, break_glass_id, action)
        with lifted():
            break_glass_set_state(
                actor=actor,
                glass=glass,
                state=BreakGlassState.REFUSED,
                reason=reason,
                policy_version=policy_version,
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
        _, glass, _, policy_version = _held(
            actor, break_glass_id, Action.RELEASE_BREAK_GLASS_CONFIRM
        )
        with lifted():
            break_glass_close(
                actor=actor, glass=glass, reason=reason, policy_version=policy_version
            )
        releases_changed()
    return glass


def break_glass_review(
    *, actor: Principal, break_glass_id: int, verdict: str, lessons: str
) -> BreakGlass:
    """Say afterwards whether it was justified, and what follows from it.

    Raises:
        InvalidInput: an unknown verdict, or no lessons.
        NotFound, NotPermitted: the policy refuses, whoever asked or confirmed would review it, or
            there is no fresh second factor.
        WrongState: it has not ended, or is reviewed.
    """
    checked_choice(verdict, list(AfterVerdict.values), field="verdict")
    lessons = checked_text(lessons, field="lessons", limit=LESSONS_MAX)
    with transaction.atomic():
        _, glass, person, policy_version = _held(actor, break_glass_id, Action.RELEASE_DECIDE)
        attempt = _attempt(actor, glass, Action.RELEASE_DECIDE, policy_version)
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
                policy_version=policy_version,
                data={"verdict": verdict, **proof_facts(proof)},
            )
    return glass


def break_glasses_end_due() -> int:
    """Move what is over to `ended`, and what nobody confirmed within an hour to `lapsed`; returns
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
            _lapse(controller, glass)
        if over:
            releases_changed()
    return len(over) + len(late)


def _lapse(actor: Principal, glass: BreakGlass) -> None:
    break_glass_set_state(
        actor=actor,
        glass=glass,
        state=BreakGlassState.LAPSED,
        reason="Nobody confirmed it within an hour.",
    )


def _held(
    actor: Principal, break_glass_id: int, action: Action
) -> tuple[Release, BreakGlass, Person, int | None]:
    """The release and then the break-glass, locked, for somebody whom the policy lets."""
    seen = break_glass_get(actor=actor, id=break_glass_id)
    release = release_locked(seen.release_id)
    decision = authorize(actor=actor, action=action, resource=release_resource(release))
    person = acting_person(actor)
    with lifted():
        return release, break_glass_locked(break_glass_id), person, decision.policy_version


def _check_possible(release: Release) -> Review:
    """The review of a release that an emergency could let serve.

    Raises:
        WrongState: it is not under review, or something forbids it that nobody may excuse.
    """
    if release.state not in UNDER_REVIEW:
        raise WrongState(
            f"Release {release.pk} is {ReleaseState(release.state).label.lower()}; the glass is "
            "broken only for what is under review.",
            hint="Submit the version for release.",
        )
    review = release_review(release)
    if review is None:
        raise WrongState(f"Release {release.pk} has no review; the glass cannot be broken for it.")
    check_trusted(release.version, "served")
    check_not_suspended(release.version, "served")
    check_dossier(release)
    chain = [release.version, *base_chain(release.version)]
    for passed, note in (files_match(chain), origin_signed(chain)):
        if not passed:
            raise WrongState(
                f"The glass cannot be broken for release {release.pk}: {note}",
                code="never_excused",
                hint="Bytes and origin are never excused.",
            )
    if (late := overdue_review(release)) is not None:
        raise WrongState(
            f"Department {release.department.slug} has not had its break-glass {late.pk} reviewed, "
            "which is overdue; it may not break the glass again.",
            code="after_review_overdue",
            hint="A reviewer who neither asked for it nor confirmed it reviews it first.",
        )
    return review


def _check_none_open(release: Release) -> None:
    rows = BreakGlass.objects.select_for_update(of=("self",)).select_related("department")
    states = (BreakGlassState.REQUESTED, BreakGlassState.ACTIVE)
    glass = rows.filter(release=release, state__in=states).first()
    if glass is None:
        return
    now = timezone.now()
    if glass.state == BreakGlassState.REQUESTED and glass.asked_at + CONFIRM_WITHIN <= now:
        _lapse(service_principal("controller"), glass)
    elif glass.ends_at is not None and glass.ends_at <= now:
        break_glass_close(
            actor=service_principal("controller"),
            glass=glass,
            reason=f"Its {glass.hours} hours are over.",
            at=glass.ends_at,
        )
    else:
        raise WrongState(
            f"Break-glass {glass.pk} of release {release.pk} is {glass.state} already; "
            "another was not asked for."
        )


def _check_requested(glass: BreakGlass) -> None:
    if glass.state != BreakGlassState.REQUESTED:
        raise WrongState(
            f"Break-glass {glass.pk} is {BreakGlassState(glass.state).label.lower()}; it cannot be "
            "confirmed."
        )
    if glass.asked_at + CONFIRM_WITHIN <= timezone.now():
        raise WrongState(
            f"Break-glass {glass.pk} was asked for more than an hour ago; it cannot be confirmed.",
            hint="It is asked for again.",
        )


def _check_same_dossier(release: Release, glass: BreakGlass) -> None:
    if glass.dossier_digest != release.dossier_digest:
        raise WrongState(
            f"Break-glass {glass.pk} is about {glass.dossier_digest[:12]}…, and release "
            f"{release.pk} has {release.dossier_digest[:12]}… now; it was not confirmed.",
            code="digest_mismatch",
            hint="It is asked for again, for the dossier as it is.",
        )


def separation(glass: BreakGlass, person_id: int | None, doing: str) -> str:
    """Why this person may not `confirm` or `review` it; empty when they may."""
    if person_id == glass.asked_by_id:
        return f"asked for break-glass {glass.pk} and may not {doing} it"
    if doing == "review" and person_id == glass.confirmed_by_id:
        return f"confirmed break-glass {glass.pk} and may not {doing} it"
    if person_id in glass.excluded_people:
        return f"had a part in what break-glass {glass.pk} releases and may not {doing} it"
    return ""


def _separated(
    actor: Principal, person: Person, glass: BreakGlass, doing: str, attempt: Attempt
) -> DomainError | None:
    why = separation(glass, person.pk, doing)
    if not why:
        return None
    return NotPermitted(
        f"Separation of duties: {actor.name} {why}.",
        code="separation_of_duties",
        hint="Somebody does who had no part in it.",
        attempt=attempt,
    )


def _attempt(
    actor: Principal, glass: BreakGlass, action: Action, policy_version: int | None
) -> Attempt:
    return Attempt(
        actor=actor,
        action=action.value,
        subject=break_glass_subject(glass),
        department=glass.department.slug,
        policy_version=policy_version,
    )
