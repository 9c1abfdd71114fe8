"""Readiness of a version for release: the checklist's own results, before the form is filled in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from governance.errors import InvalidInput, NotFound, NotPermitted
from governance.people.models import Department, Person, RoleAssignment
from governance.people.selectors import principal_for_person
from governance.policy.engine import Resource
from governance.reviews.absences.models import Absence
from governance.reviews.models import ChecklistState, Review
from governance.reviews.reviewers import reviewer_counts
from governance.reviews.selectors import review_standing
from registry.datasets.leaks import _overlap
from registry.evaluations.models import Gate, GateResult
from registry.evaluations.services import gate_set
from registry.evaluations.standing import GateState
from registry.releases.checklist import AT_SUBMISSION
from registry.releases.readiness import (
    Blocks,
    Fix,
    Readiness,
    ReadinessState,
    Requirement,
    version_readiness,
)
from registry.releases.selectors import release_review
from registry.versions.models import Model, ModelVersion
from tests.proofs import proven
from tests.stored import stored_file
from tests.unit.registry.objects import evaluation, version
from tests.unit.registry.office import Office

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# One evaluation, one gate, one base, three reviewers. Pinned: a rise is a decision.
QUERIES = 27


@pytest.fixture
def office(
    policy: object, person: Callable[..., Person], department: Callable[[str], Department]
) -> Office:
    """An office of this test alone: other tests here count who there is."""
    return Office(person, department)


def readiness(office: Office, of: ModelVersion | None = None, tier: str = "limited") -> Readiness:
    actor = principal_for_person(office.submitter)
    return version_readiness(actor=actor, version=of or office.tuned, tier=tier)


def requirement(found: Readiness, code: str) -> Requirement:
    (one,) = [each for each in found.requirements if each.code == code]
    return one


def test_a_version_with_everything_is_ready(office: Office) -> None:
    found = readiness(office)
    assert found.missing == []
    assert found.can_submit
    states = {each.code: each.state for each in found.requirements}
    assert states == {
        "trusted": ReadinessState.READY,
        "evaluated": ReadinessState.READY,
        "gates": ReadinessState.READY,
        "leak": ReadinessState.READY,
        "intake": ReadinessState.READY,
        "license": ReadinessState.READY,
        "card": ReadinessState.NOT_APPLICABLE,
        "classification": ReadinessState.AT_SUBMISSION,
        "dossier": ReadinessState.AT_SUBMISSION,
        "files": ReadinessState.AT_SUBMISSION,
        "tier": ReadinessState.AT_SUBMISSION,
        "engine": ReadinessState.READY,
        "data": ReadinessState.READY,
        "reviewers:compliance": ReadinessState.READY,
        "reviewers:model-risk": ReadinessState.READY,
    }
    assert requirement(found, "card").note.startswith("The tier limited does not require it.")
    note = requirement(found, "dossier").note
    assert note == "The form asks for oversight (who oversees it, and how to stop it)."
    assert requirement(found, "engine").note == "One engine can serve it: Assay's own."
    assert "State internal, the level of" in requirement(found, "classification").note


def test_a_version_that_two_engines_serve_says_which_one_was_evaluated(office: Office) -> None:
    Model.objects.filter(pk=office.tuned.model_id).update(task="text-generation")
    engine = requirement(readiness(office, ModelVersion.objects.get(pk=office.tuned.pk)), "engine")
    assert engine.state is ReadinessState.AT_SUBMISSION
    assert "Assay's own or vLLM" in engine.note
    assert "reviewer's judgment" in engine.note


@pytest.mark.parametrize("tier", ["minimal", "limited", "general-purpose", "high"])
def test_it_says_what_the_checklist_of_the_release_then_says(office: Office, tier: str) -> None:
    RoleAssignment.objects.filter(person=office.risk).delete()
    ModelVersion.objects.filter(pk=office.tuned.pk).update(license="")
    office.tuned.refresh_from_db()
    found = readiness(office, tier=tier)
    review = release_review(office.submit(tier=tier))
    assert review is not None
    states = {
        ReadinessState.READY: ChecklistState.SATISFIED,
        ReadinessState.MISSING: ChecklistState.FAILED,
        ReadinessState.NOT_APPLICABLE: ChecklistState.NOT_APPLICABLE,
        ReadinessState.NEEDS_JUDGMENT: ChecklistState.OPEN,
    }
    by_title = {each.title: each for each in found.requirements}
    compared = 0
    for item in review.checklist.all():
        if item.title in by_title and by_title[item.title].code not in AT_SUBMISSION:
            shown = by_title[item.title]
            assert (states[shown.state], shown.waivable) == (item.state, item.waivable), item.title
            assert shown.note.startswith(item.note), item.title
            compared += 1
    assert compared == (5 if tier in {"minimal", "limited"} else 6)
    assert {each.title for each in review_standing(review).blocking} >= {
        each.title for each in found.missing if not each.code.startswith("reviewers")
    }


def test_an_unevaluated_version_cannot_be_submitted(office: Office) -> None:
    fresh = version(
        office.tuned.model, office.trainer, "full", office.base, dataset_version=office.train
    )
    found = readiness(office, fresh)
    assert not found.can_submit
    evaluated = requirement(found, "evaluated")
    assert evaluated.state is ReadinessState.MISSING
    assert evaluated.blocks is Blocks.SUBMISSION
    assert evaluated.fix == Fix("version_evaluate", fresh.pk)
    assert [each.state for each in found.gates] == [GateState.NOT_EVALUATED]
    assert requirement(found, "gates").blocks is Blocks.APPROVAL
    assert requirement(found, "leak").state is ReadinessState.NOT_APPLICABLE
    with pytest.raises(InvalidInput):
        office.submit(version=fresh)
    assert readiness(office, fresh, tier="minimal").can_submit


def test_gates_come_with_the_latest_result_of_the_version(office: Office) -> None:
    actor = proven(office.trainer)
    gate = {"actor": actor, "model": office.tuned.model, "dataset": office.test.dataset}
    gate_set(**gate, metric="macro_f1", comparator=">=", threshold=0.9)
    found = readiness(office)
    assert [(each.state, each.value) for each in found.gates] == [
        (GateState.PASSED, 0.8),
        (GateState.SET_LATER, None),
    ]
    assert requirement(found, "gates").fix == Fix("version_evaluate", office.tuned.pk)
    Gate.objects.update(created_at=timezone.now() - timedelta(days=1))
    evaluation(office.tuned, office.test, office.trainer)
    found = readiness(office)
    assert [each.state for each in found.gates] == [GateState.PASSED, GateState.FAILED]
    assert requirement(found, "gates").fix == Fix("model", "sentiment")
    assert "macro_f1 >= 0.9 on test: failed with 0.7" in requirement(found, "gates").note


def test_a_tier_that_requires_a_gate_asks_to_set_one(office: Office) -> None:
    GateResult.objects.all().delete()
    Gate.objects.all().delete()
    assert requirement(readiness(office), "gates").state is ReadinessState.NOT_APPLICABLE
    found = requirement(readiness(office, tier="high"), "gates")
    assert (found.state, found.fix) == (ReadinessState.MISSING, Fix("model_gate", "sentiment"))


def test_a_recalled_version_blocks_the_submission(office: Office) -> None:
    ModelVersion.objects.filter(pk=office.base.pk).update(state="recalled")
    found = requirement(readiness(office), "trusted")
    assert (found.state, found.blocks) == (ReadinessState.MISSING, Blocks.SUBMISSION)
    assert "minilm v1 is recalled" in found.note


def test_a_release_under_review_is_named(office: Office) -> None:
    release = office.submit()
    found = requirement(readiness(office), "under_review")
    assert found.fix == Fix("release", release.pk)
    assert "review-sentiment in production" in found.note


def test_rows_that_the_store_lost_fail_the_leak_check_alone(office: Office) -> None:
    stored_file(office.test.digest).unlink()
    _overlap.cache_clear()
    found = readiness(office)
    assert [each.code for each in found.missing] == ["leak"]
    assert "leak check cannot run" in requirement(found, "leak").note


def test_the_lowest_tier_follows_from_the_training_data(office: Office) -> None:
    found = readiness(office, tier="")
    assert found.tier == "minimal"
    assert requirement(found, "tier").note == (
        "The form refuses a tier that is too low for them. Limited risk also asks for oversight. "
        "General-purpose model and High risk also ask for risks, oversight, operation and "
        "conformity."
    )
    assert not [each for each in readiness(office, tier="high").requirements if each.code == "tier"]
    dataset = office.train.dataset
    dataset.classification = "restricted"
    dataset.save()
    assert readiness(office, tier="").tier == "limited"
    with pytest.raises(InvalidInput, match="There is no tier 'none'"):
        readiness(office, tier="none")


def test_only_those_who_may_see_its_releases_get_an_answer(
    office: Office, person: Callable[..., Person]
) -> None:
    office.tuned.model.shared = True
    office.tuned.model.save()
    outsider = principal_for_person(person("Fay", "lead@finance"))
    with pytest.raises((NotFound, NotPermitted)):
        version_readiness(actor=outsider, version=office.tuned)


def test_it_takes_as_many_queries_however_many_reviewers_and_evaluations_there_are(
    office: Office,
    person: Callable[..., Person],
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(8):
        person(f"More {number}", "reviewer:compliance", "reviewer:model-risk")
        evaluation(office.tuned, office.test, office.trainer)
    actor = principal_for_person(office.submitter)
    readiness(office)
    with django_assert_num_queries(QUERIES):
        version_readiness(actor=actor, version=office.tuned, tier="limited")


def absent(person: Person, deputy: Person) -> None:
    """From now to tomorrow."""
    Absence.objects.create(
        person=person, deputy=deputy, specialty="compliance", set_by=person,
        starts_at=timezone.now(), ends_at=timezone.now() + timedelta(days=1),
    )  # fmt: skip


class TestReviewers:
    """Counts of reviewers who could decide."""

    RESOURCE = Resource("review", department="clinical", attributes={"tier": "limited"})

    def counts(self, **required: int) -> dict[str, tuple[int, int, int, int, bool]]:
        wanted = {name.replace("_", "-"): count for name, count in required.items()}
        found = reviewer_counts(
            wanted, resource=self.RESOURCE, excluded=self.excluded, vote_after_hours=24
        )
        return {
            each.specialty: (each.able, each.had_part, each.new, each.away, each.short)
            for each in found
        }

    excluded: frozenset[int] = frozenset()

    def test_those_who_had_a_part_do_not_count(
        self, policy: object, person: Callable[..., Person]
    ) -> None:
        author = person("Ada", "reviewer:compliance")
        assert self.counts(compliance=1) == {"compliance": (1, 0, 0, 0, False)}
        self.excluded = frozenset({author.pk})
        assert self.counts(compliance=1) == {"compliance": (0, 1, 0, 0, True)}

    def test_one_person_cannot_give_two_approvals(
        self, policy: object, person: Callable[..., Person]
    ) -> None:
        person("Ada", "reviewer:compliance", "reviewer:model-risk")
        found = self.counts(compliance=1, model_risk=1)
        assert found == {"compliance": (1, 0, 0, 0, True), "model-risk": (1, 0, 0, 0, True)}
        person("Ben", "reviewer:model-risk")
        found = self.counts(compliance=1, model_risk=1)
        assert found == {"compliance": (1, 0, 0, 0, False), "model-risk": (2, 0, 0, 0, False)}

    def test_new_absent_and_inactive_reviewers_cannot_decide_now(
        self, policy: object, person: Callable[..., Person]
    ) -> None:
        new = person("Nia", "reviewer:compliance")
        RoleAssignment.objects.filter(person=new).update(created_at=timezone.now())
        away = person("Abe", "reviewer:compliance")
        absent(away, person("Dee"))
        gone = person("Gus", "reviewer:compliance")
        Person.objects.filter(pk=gone.pk).update(is_active=False)
        assert self.counts(compliance=1) == {"compliance": (0, 0, 1, 1, True)}

    def test_a_deputy_counts_for_whom_they_stand_in(
        self, policy: object, person: Callable[..., Person]
    ) -> None:
        away, deputy = person("Abe", "reviewer:compliance"), person("Dee", "reviewer:security")
        absent(away, deputy)
        assert self.counts(compliance=1) == {"compliance": (1, 0, 0, 1, False)}
        # Nobody stands in for an author.
        self.excluded = frozenset({away.pk})
        assert self.counts(compliance=1) == {"compliance": (0, 1, 0, 0, True)}

    def test_those_whom_the_policy_forbids_to_decide_do_not_count(
        self, policy: object, person: Callable[..., Person]
    ) -> None:
        person("Aud", "reviewer:compliance", "auditor")
        assert self.counts(compliance=1) == {"compliance": (0, 0, 0, 0, True)}


def test_reviewers_who_could_decide_then_may(office: Office) -> None:
    """The panel counts whom the review lets vote."""
    found = {each.specialty: each for each in readiness(office).reviewers}
    assert found["compliance"].able == 1  # Carla; the four others had a part, or would submit it.
    assert found["compliance"].had_part == 4
    review = Review.objects.get(subject_id=str(office.submit().pk))
    holders = RoleAssignment.objects.filter(specialty="compliance")
    outside = set(holders.values_list("person", flat=True)) - set(review.excluded_people)
    assert outside == {office.compliance.pk}
