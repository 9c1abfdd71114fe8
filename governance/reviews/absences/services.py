"""Absences: set one, or end one early."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Attempt, audit_record
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.credentials import with_sign_in_admins
from governance.people.models import Person, Role, RoleAssignment, Specialty
from governance.people.proof import proof_facts, require_proof
from governance.people.roles import person_subject
from governance.people.selectors import person_resource
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.absences.models import Absence
from governance.reviews.absences.selectors import absences_visible_to

LONGEST = timedelta(days=180)
AHEAD = timedelta(days=365)


def absence_set(
    *,
    actor: Principal,
    deputy: Person,
    specialty: str,
    starts_at: datetime,
    ends_at: datetime,
    person: Person | None = None,
) -> Absence:
    """Let `deputy` review for `specialty` in a person's place from `starts_at` to `ends_at`.

    Reviewers set their own absences; actors who may change a person's account, those of `person`.

    Raises:
        InvalidInput: an unknown specialty, or times in the wrong order, past, or too far away.
        NotFound, NotPermitted: the actor may not change the person's account, is not a person, has
            no fresh second factor, or would become another person's deputy by their own act.
        WrongState: the person does not review for the specialty, the deputy is not a reviewer, or
            it overlaps another absence.
    """
    _check_times(starts_at, ends_at)
    if specialty not in Specialty.values:
        raise InvalidInput(
            f"There is no specialty {specialty[:40]}.",
            fields={"specialty": [f"is one of {', '.join(Specialty.values)}"]},
        )
    with transaction.atomic():
        absent, set_by_id, decision = _absentee(actor, person)
        attempt = _attempt(actor, absent, decision)
        proof = require_proof(actor, "naming a deputy", attempt=attempt)
        if absent.pk != set_by_id and deputy.pk in with_sign_in_admins({set_by_id}):
            raise NotPermitted(
                f"Separation of duties: {actor.name} may not become the deputy of {absent.name} by "
                "their own act.",
                code="separation_of_duties",
                hint="Another administrator names the deputy, or the absent reviewer does.",
                attempt=attempt,
            )
        _check_people(absent, deputy, specialty)
        overlapping = Absence.objects.filter(
            person=absent,
            specialty=specialty,
            ended_at__isnull=True,
            starts_at__lt=ends_at,
            ends_at__gt=starts_at,
        ).first()
        if overlapping is not None:
            raise WrongState(
                f"Absence {overlapping.pk} covers some of that time for {specialty} already.",
                hint="End it first.",
            )
        absence = Absence.objects.create(
            person=absent,
            deputy=deputy,
            specialty=specialty,
            starts_at=starts_at,
            ends_at=ends_at,
            set_by_id=set_by_id,
        )
        _record(actor, "absence:set", absence, decision, proof_facts(proof))
    return absence


def _check_times(starts_at: datetime, ends_at: datetime) -> None:
    now = timezone.now()
    fields: dict[str, list[str]] = {}
    if ends_at <= starts_at:
        fields["ends_at"] = ["is not after the beginning"]
    elif ends_at <= now:
        fields["ends_at"] = ["is in the past"]
    elif ends_at - starts_at > LONGEST:
        fields["ends_at"] = [f"is more than {LONGEST.days} days after the beginning"]
    if starts_at > now + AHEAD:
        fields["starts_at"] = [f"is more than {AHEAD.days} days away"]
    if fields:
        raise InvalidInput(
            "The absence ends before it starts, or is too long or too far away.", fields=fields
        )


def _absentee(actor: Principal, person: Person | None) -> tuple[Person, int, Authorization | None]:
    """Return the absent person, locked; the actor's person ID; the decision, if they differ."""
    if actor.person_id is None:
        raise NotPermitted(
            f"{actor.name} is not a person; only people can have an absence.",
            code="person_required",
            hint="Sign in, or use a personal access token.",
        )
    decision = None
    if person is not None and person.pk != actor.person_id:
        decision = authorize(
            actor=actor, action=Action.PERSON_UPDATE, resource=person_resource(person)
        )
    absent_id = actor.person_id if person is None else person.pk
    absent = Person.objects.select_for_update(no_key=True).get(pk=absent_id)
    return absent, actor.person_id, decision


def _attempt(actor: Principal, absent: Person, decision: Authorization | None) -> Attempt:
    return Attempt(
        actor=actor,
        action="absence:set",
        subject=person_subject(absent),
        decision=decision,
    )


def _check_people(absent: Person, deputy: Person, specialty: str) -> None:
    if absent.pk == deputy.pk:
        raise InvalidInput(
            "A reviewer cannot be their own deputy.", fields={"deputy": ["must be another person"]}
        )
    reviewing = RoleAssignment.objects.filter(role=Role.REVIEWER)
    if not reviewing.filter(person=absent, specialty=specialty).exists():
        raise WrongState(f"{absent.name} does not review for {specialty}; a deputy is not needed.")
    if not deputy.is_active or not reviewing.filter(person=deputy).exists():
        raise WrongState(
            f"{deputy.name} is not a reviewer and cannot be a deputy.",
            hint="A deputy must be a reviewer, of any specialty.",
        )


def absence_end(*, actor: Principal, absence_id: int) -> Absence:
    """End an absence now: the person is back, or the deputy declines. Past votes stay valid.

    Raises:
        NotFound: it does not exist, or the actor may not see it.
        NotPermitted: the actor is neither person nor deputy, and may not change the account.
        WrongState: it has ended.
    """
    with transaction.atomic():
        rows = absences_visible_to(actor).filter(pk=absence_id)
        absence = rows.select_for_update(of=("self",)).first()
        if absence is None:
            raise NotFound("There is no such absence.")
        decision = None
        if actor.person_id not in (absence.person_id, absence.deputy_id):
            decision = authorize(
                actor=actor, action=Action.PERSON_UPDATE, resource=person_resource(absence.person)
            )
        now = timezone.now()
        if absence.ended_at is not None or absence.ends_at <= now:
            raise WrongState(f"Absence {absence.pk} is over.")
        absence.ended_at = now
        absence.save(update_fields=["ended_at"])
        _record(actor, "absence:end", absence, decision)
    return absence


def _record(
    actor: Principal,
    action: str,
    absence: Absence,
    decision: Authorization | None,
    proved: Mapping[str, str] = MappingProxyType({}),
) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=person_subject(absence.person),
        data={
            "absence": absence.pk,
            "deputy": absence.deputy_id,
            "specialty": absence.specialty,
            "starts_at": absence.starts_at.isoformat(),
            "ends_at": absence.ends_at.isoformat(),
            **proved,
        },
        decision=decision,
    )
