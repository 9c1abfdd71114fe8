"""A reviewer's deputy: who may be one, for what, and that separation of duties holds for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.services import Subject
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Person, RoleAssignment
from governance.principals import Principal
from governance.reviews.absences.models import Absence
from governance.reviews.absences.selectors import absences_visible_to, stands_in_for
from governance.reviews.absences.services import absence_end, absence_set
from governance.reviews.models import Decision, Review, ReviewState
from governance.reviews.services import review_decide
from tests.proofs import proven, vote_proof
from tests.unit.audit_support import bodies, recorded

pytestmark = pytest.mark.sweep

HOUR = timedelta(hours=1)


def person(principal: Principal) -> Person:
    return Person.objects.get(pk=principal.person_id)


@pytest.fixture
def priya(actor: Callable[..., Principal]) -> Principal:
    return actor("Priya", "reviewer:privacy")


@pytest.fixture
def away(risk: Principal, priya: Principal) -> Callable[..., Absence]:
    """Rolf, who reviews for model risk, is away; Priya stands in. Changed as asked."""

    def set_absence(**changes: Any) -> Absence:
        now = timezone.now()
        asked: dict[str, Any] = {
            "actor": risk,
            "deputy": person(priya),
            "specialty": "model-risk",
            "starts_at": now - HOUR,
            "ends_at": now + HOUR,
        }
        return absence_set(**(asked | changes))

    return set_absence


def thing(key: str) -> Subject:
    return Subject("thing", key, f"thing {key}")


def vote(actor: Principal, review: Review, verdict: str = "approve", **changes: Any) -> Review:
    asked: dict[str, Any] = {"reason": "because", "digest": review.digest, "specialty": ""}
    return review_decide(actor=actor, review_id=review.pk, verdict=verdict, **(asked | changes))


def test_a_deputy_votes_in_the_place_of_who_is_away(
    opened: Callable[..., Review],
    away: Callable[..., Absence],
    compliance: Principal,
    risk: Principal,
    priya: Principal,
) -> None:
    review = opened()
    with pytest.raises(NotPermitted, match="reviews for privacy"):
        vote(priya, review)
    absence = away()
    assert stands_in_for(priya, review) == {"model-risk": risk.person_id}
    vote(compliance, review)
    assert vote(priya, review).state == ReviewState.APPROVED
    decision = Decision.objects.get(person_id=priya.person_id)
    assert (decision.specialty, decision.in_place_of_id) == ("model-risk", risk.person_id)
    said = bodies(action="release:decide")[-1]["data"]
    assert (said["specialty"], said["in_place_of"]) == ("model-risk", risk.person_id)
    event = recorded(action="absence:set")
    assert (event.subject_type, event.subject_id) == ("person", str(risk.person_id))
    assert bodies(action="absence:set")[-1]["data"]["absence"] == absence.pk


def test_ones_own_specialty_comes_first(
    opened: Callable[..., Review], away: Callable[..., Absence], priya: Principal
) -> None:
    away()
    review = opened(required_approvals={"privacy": 1, "model-risk": 1})
    with pytest.raises(InvalidInput, match="model-risk or privacy"):
        vote(priya, review)
    vote(priya, review, specialty="privacy")
    assert Decision.objects.get().in_place_of_id is None
    with pytest.raises(WrongState, match="has voted"):
        vote(priya, review, specialty="model-risk")


def test_who_had_a_part_has_no_deputy(
    opened: Callable[..., Review], away: Callable[..., Absence], risk: Principal, priya: Principal
) -> None:
    away()
    review = opened(excluded_people=[risk.person_id])
    assert stands_in_for(priya, review) == {}
    with pytest.raises(NotPermitted, match="reviews for privacy"):
        vote(priya, review)
    assert not Decision.objects.exists()


def test_a_deputy_who_had_a_part_does_not_decide_either(
    opened: Callable[..., Review], away: Callable[..., Absence], priya: Principal
) -> None:
    away()
    review = opened(excluded_people=[priya.person_id])
    with pytest.raises(NotPermitted, match="had a part"):
        vote(priya, review, specialty="model-risk")


def test_one_role_one_vote_whoever_gives_it(
    opened: Callable[..., Review], away: Callable[..., Absence], risk: Principal, priya: Principal
) -> None:
    away()
    review = opened(required_approvals={"model-risk": 2})
    vote(priya, review)
    with pytest.raises(WrongState, match="A deputy has voted in the place of Rolf"):
        vote(risk, review)
    other = opened(required_approvals={"model-risk": 2}, subject=thing("8"))
    vote(risk, other)
    with pytest.raises(NotPermitted, match="reviews for privacy"):
        vote(priya, other)


@pytest.mark.parametrize(
    ("starts", "ends"), [(HOUR, 2 * HOUR), (-2 * HOUR, -HOUR / 60)], ids=["later", "over"]
)
def test_only_while_it_lasts(
    opened: Callable[..., Review],
    away: Callable[..., Absence],
    risk: Principal,
    priya: Principal,
    starts: timedelta,
    ends: timedelta,
) -> None:
    now = timezone.now()
    Absence.objects.create(
        person=person(risk), deputy=person(priya), specialty="model-risk",
        starts_at=now + starts, ends_at=now + ends, set_by=person(risk),
    )  # fmt: skip
    review = opened()
    assert stands_in_for(priya, review) == {}
    with pytest.raises(NotPermitted):
        vote(priya, review)


def test_it_ends_early_and_what_was_decided_stands(
    opened: Callable[..., Review],
    away: Callable[..., Absence],
    compliance: Principal,
    priya: Principal,
    risk: Principal,
) -> None:
    review, absence = opened(), away()
    vote(priya, review)
    absence_end(actor=risk, absence_id=absence.pk)
    assert vote(compliance, review).state == ReviewState.APPROVED
    with pytest.raises(NotPermitted):
        vote(priya, opened(subject=thing("9")))
    with pytest.raises(WrongState, match="is over"):
        absence_end(actor=risk, absence_id=absence.pk)
    assert recorded(action="absence:end").actor_id == str(risk.person_id)


def test_it_is_worth_nothing_once_the_role_is_gone(
    opened: Callable[..., Review], away: Callable[..., Absence], priya: Principal, risk: Principal
) -> None:
    review = opened()
    away()
    held = RoleAssignment.objects.filter(person_id=risk.person_id)
    values = held.values("specialty").get()
    held.delete()
    assert stands_in_for(priya, review) == {}
    RoleAssignment.objects.create(person_id=risk.person_id, role="reviewer", **values)
    RoleAssignment.objects.filter(person_id=priya.person_id).delete()
    plain = proven(person(priya))
    assert stands_in_for(plain, review) == {}
    with pytest.raises(NotFound):
        vote(plain, review)


def test_who_may_be_a_deputy(
    away: Callable[..., Absence],
    actor: Callable[..., Principal],
    submitter: Principal,
    risk: Principal,
    priya: Principal,
) -> None:
    with pytest.raises(WrongState, match="Dora is not a reviewer"):
        away(deputy=person(submitter))
    with pytest.raises(InvalidInput, match="their own deputy"):
        away(deputy=person(risk))
    Person.objects.filter(pk=priya.person_id).update(is_active=False)
    with pytest.raises(WrongState, match="Priya is not a reviewer"):
        away()
    with pytest.raises(WrongState, match="Rolf does not review for security"):
        away(specialty="security")
    with pytest.raises(InvalidInput, match="no specialty cheese"):
        away(specialty="cheese")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ends_at": timedelta(hours=-2)}, "ends_at"),
        ({"starts_at": timedelta(days=-3), "ends_at": timedelta(days=-2)}, "ends_at"),
        ({"ends_at": timedelta(days=200)}, "ends_at"),
        ({"starts_at": timedelta(days=400), "ends_at": timedelta(days=410)}, "starts_at"),
    ],
)
def test_times_that_cannot_be(
    away: Callable[..., Absence], changes: dict[str, timedelta], field: str
) -> None:
    now = timezone.now()
    given: dict[str, datetime] = {name: now + offset for name, offset in changes.items()}
    with pytest.raises(InvalidInput) as caught:
        away(**given)
    assert field in caught.value.fields
    assert not Absence.objects.exists()


def test_two_absences_do_not_overlap(away: Callable[..., Absence]) -> None:
    absence = away()
    with pytest.raises(WrongState, match=f"Absence {absence.pk} covers"):
        away()
    later = away(starts_at=absence.ends_at, ends_at=absence.ends_at + HOUR)
    assert later.pk != absence.pk


def test_others_neither_see_nor_set_nor_end_it_but_an_administrator(
    away: Callable[..., Absence],
    actor: Callable[..., Principal],
    compliance: Principal,
    submitter: Principal,
    risk: Principal,
    priya: Principal,
) -> None:
    absence = away()
    admin = actor("Ada", "admin")
    assert set(absences_visible_to(priya)) == set(absences_visible_to(admin)) == {absence}
    assert not absences_visible_to(submitter)
    with pytest.raises(NotFound):
        absence_end(actor=submitter, absence_id=absence.pk)
    with pytest.raises(NotPermitted):
        absence_end(actor=compliance, absence_id=absence.pk)
    with pytest.raises((NotFound, NotPermitted)):
        away(actor=compliance, person=person(risk), starts_at=absence.ends_at,
             ends_at=absence.ends_at + HOUR)  # fmt: skip
    absence_end(actor=priya, absence_id=absence.pk)
    made = away(actor=admin, person=person(risk))
    assert (made.person_id, made.set_by_id) == (risk.person_id, admin.person_id)
    by_ada = recorded(action="absence:set", actor_id=str(admin.person_id))
    assert by_ada.policy_version is not None
    absence_end(actor=admin, absence_id=made.pk)


@pytest.mark.parametrize(
    ("says", "changes"),
    [
        ("is no deputy of", {"specialty": "compliance"}),
        ("and so is a deputy", {}),
    ],
)
def test_the_database_holds_it_too(
    opened: Callable[..., Review],
    away: Callable[..., Absence],
    risk: Principal,
    priya: Principal,
    says: str,
    changes: dict[str, str],
) -> None:
    away()
    review = opened(excluded_people=[risk.person_id])
    values: dict[str, Any] = {
        "review": review, "submitter": review.opened_by, "person_id": priya.person_id,
        "verdict": "approve", "specialty": "model-risk", "in_place_of_id": risk.person_id,
        "reason": "r", "digest": review.digest, "round": 1, **vote_proof(),
    }  # fmt: skip
    with pytest.raises(IntegrityError, match=says), transaction.atomic():
        Decision.objects.create(**(values | changes))


def test_an_absence_stands_in_the_database(away: Callable[..., Absence]) -> None:
    absence = away()
    rows = Absence.objects.filter(pk=absence.pk)
    with (
        pytest.raises(IntegrityError, match=r"^absence \d+ is permanent"),
        transaction.atomic(),
    ):
        rows.update(ends_at=timezone.now() + timedelta(days=30))
    with (
        pytest.raises(IntegrityError, match=r"^absence \d+ is permanent"),
        transaction.atomic(),
    ):
        rows.delete()
    assert rows.update(ended_at=timezone.now()) == 1
    with (
        pytest.raises(IntegrityError, match=r"^absence \d+ is permanent"),
        transaction.atomic(),
    ):
        rows.update(ended_at=None)
