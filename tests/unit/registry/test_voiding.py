"""Voiding: what is under review ends, visibly, when something changes that its dossier covers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.errors import WrongState
from governance.people.models import Person
from governance.principals import Principal
from governance.reviews.models import Review, ReviewState
from governance.reviews.policies.lifecycle import (
    review_policy_decide,
    review_policy_draft,
    review_policy_propose,
)
from governance.reviews.policies.shipping import shipped_text
from registry.evaluations.services import gate_set
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_review
from registry.releases.services import release_answer, release_withdraw
from registry.releases.states import releases_move
from registry.releases.validity import releases_expire_due
from registry.releases.voiding import releases_void_due, stale_because
from tests.proofs import proven
from tests.unit.audit_support import bodies
from tests.unit.registry.objects import data, evaluation, version
from tests.unit.registry.office import Office
from workers.deployments.services import deployment_create

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def other_version(office: Office) -> Any:
    """Another version of the line, measured too."""
    made = version(
        office.tuned.model, office.trainer, "full", office.base, dataset_version=office.train
    )
    evaluation(made, office.test, office.trainer)
    return made


def now(release: Release) -> Release:
    return Release.objects.get(pk=release.pk)


def is_voided(release: Release, because: str) -> bool:
    """The release and its review are void for `because`, and the log says so twice."""
    row, review = now(release), release_review(release)
    assert review is not None
    if row.state != ReleaseState.VOIDED:
        assert row.voided_because == ""
        assert review.state in (ReviewState.OPEN, ReviewState.CHANGES_REQUESTED)
        return False
    assert because in row.voided_because
    assert (review.state, review.closed_at is not None) == (ReviewState.VOIDED, True)
    for action, subject in (("release:voided", release.pk), ("review:voided", review.pk)):
        said = bodies(action=action, subject_id=str(subject))
        assert [each["reason"] for each in said] == [row.voided_because]
    return True


def put_in_force(actor: Callable[..., Principal], name: str) -> None:
    """A second version of a review policy."""
    ann, ben = actor(f"Ann for {name}", "admin"), actor(f"Ben for {name}", "admin")
    draft = review_policy_draft(actor=ann, text=f"{shipped_text(name)}\n# Said again.\n")
    review_policy_propose(actor=ann, policy_id=draft.pk)
    review_policy_decide(actor=ben, policy_id=draft.pk, verdict="approve", reason="Said again.")


def test_an_evaluation_voids_what_is_decided_on_that_version_and_nothing_else(
    office: Office,
) -> None:
    other = other_version(office)
    approved = office.approve(office.submit(deployment_name="first"))
    waiting = office.submit()
    theirs = office.submit(version=other, deployment_name="third")
    evaluation(office.tuned, office.test, office.trainer)
    assert is_voided(waiting, "sentiment v1 was evaluated again")
    assert not is_voided(theirs, "")
    assert now(approved).state == ReleaseState.APPROVED
    with pytest.raises(WrongState, match="is voided"):
        office.decide(waiting, office.compliance)
    with pytest.raises(WrongState, match="cannot become withdrawn"):
        release_withdraw(actor=proven(office.submitter), release_id=waiting.pk, reason="Over.")
    again = office.submit()
    assert len(again.dossier["evaluations"]) == 2


@pytest.mark.parametrize(
    ("metric", "threshold", "on", "why", "voids"),
    [
        ("accuracy", 0.9, "test", "", True),
        ("macro_f1", 0.5, "test", "", True),
        ("accuracy", 0.75, "test", "Said better.", False),
        ("accuracy", 0.9, "elsewhere", "", False),
    ],
)
def test_a_gate_voids_where_it_bears_on_what_was_measured(
    office: Office, metric: str, threshold: float, on: str, why: str, voids: bool
) -> None:
    elsewhere = data(office.uploader, office.clinical, "elsewhere", [{"text": "t", "label": "l"}])
    waiting = office.submit()
    gate_set(
        actor=proven(office.trainer),
        model=office.tuned.model,
        dataset=office.test.dataset if on == "test" else elsewhere.dataset,
        metric=metric,
        comparator=">=",
        threshold=threshold,
        why=why,
    )
    assert is_voided(waiting, "A gate was set since the dossier was frozen") is voids


def test_another_release_approved_in_its_place_voids_and_elsewhere_does_not(
    office: Office,
) -> None:
    other = other_version(office)
    waiting = office.submit()
    elsewhere = office.submit(environment="staging")
    rival = office.approve(office.submit(version=other))
    assert is_voided(waiting, "to replace nothing as review-sentiment in production")
    assert f"release {rival.pk}" in now(waiting).voided_because
    assert not is_voided(elsewhere, "")
    assert office.submit().dossier["replaces"]["release"] == rival.pk


def test_what_was_deployed_is_live_whatever_was_approved_since(office: Office) -> None:
    operator = proven(office.operator)
    first = office.approve(office.submit())
    deployment_create(actor=operator, release_id=first.pk)
    second = office.approve(office.submit(version=other_version(office)))
    waiting = office.submit(version=other_version(office))
    assert waiting.dossier["replaces"]["release"] == first.pk
    deployment_create(actor=operator, release_id=second.pk)
    assert is_voided(waiting, f"to replace release {first.pk}")
    after = office.submit(version=other_version(office))
    assert after.dossier["replaces"]["release"] == second.pk
    # Back to what served before.
    deployment_create(actor=operator, release_id=first.pk)
    assert is_voided(after, f"live there now is release {first.pk}")


@pytest.mark.parametrize("to", [ReleaseState.WITHDRAWN, ReleaseState.RECALLED])
def test_the_end_of_what_it_replaces_voids(office: Office, to: ReleaseState) -> None:
    live = office.approve(office.submit())
    waiting = office.submit(version=other_version(office))
    releases_move(
        actor=proven(office.operator),
        releases=[now(live)],
        to=to,
        reason="Why.",
    )
    assert is_voided(waiting, "what is live there now is nothing")


def test_a_suspension_leaves_the_remedy_until_another_takes_the_place(office: Office) -> None:
    operator = proven(office.operator)
    older = office.approve(office.submit())
    deployment_create(actor=operator, release_id=older.pk)
    live = office.approve(office.submit(version=other_version(office)))
    deployment_create(actor=operator, release_id=live.pk)
    remedy = office.submit(version=other_version(office))
    move: dict[str, Any] = {"actor": operator, "reason": "Why."}
    releases_move(releases=[now(live)], to=ReleaseState.SUSPENDED, **move)
    assert not is_voided(remedy, "")
    releases_move(releases=[now(live)], to=ReleaseState.APPROVED, **move)
    assert not is_voided(remedy, "")
    releases_move(releases=[now(live)], to=ReleaseState.SUSPENDED, **move)
    deployment_create(actor=operator, release_id=older.pk)
    assert is_voided(remedy, f"live there now is release {older.pk}")


def test_that_its_time_ran_out_voids_nothing(office: Office) -> None:
    """Also where one that served before could serve still: nobody has put it back."""
    operator = proven(office.operator)
    older = office.approve(office.submit(version=other_version(office)))
    deployment_create(actor=operator, release_id=older.pk)
    live = office.approve(office.submit())
    deployment_create(actor=operator, release_id=live.pk)
    waiting = office.submit(version=other_version(office))
    over = timezone.now() - timedelta(days=400)
    Release.objects.filter(pk=live.pk).update(approved_at=over, expires_at=over)
    assert stale_because(now(waiting)) == ""
    releases_expire_due()
    assert now(live).state == ReleaseState.EXPIRED
    assert not is_voided(waiting, "")
    office.attest(waiting)
    assert office.decide(waiting, office.compliance).state == ReleaseState.IN_REVIEW
    deployment_create(actor=operator, release_id=older.pk)
    assert is_voided(waiting, f"live there now is release {older.pk}")


def test_another_review_policy_in_force_voids_what_is_reviewed_under_the_old_one(
    office: Office, actor: Callable[..., Principal]
) -> None:
    waiting, asked = office.submit(), office.submit(deployment_name="second")
    office.decide(asked, office.risk, "request_changes")
    put_in_force(actor, "minimal")
    assert not is_voided(waiting, "")
    put_in_force(actor, "limited")
    because = "Review policy limited 1 was in force; now it is version 2."
    assert is_voided(waiting, because)
    assert is_voided(asked, because)
    assert office.submit().dossier["review_policy"]["version"] == 2


def test_while_changes_are_requested_the_answer_freezes_what_changed(office: Office) -> None:
    release = office.submit()
    office.decide(release, office.risk, "request_changes")
    evaluation(office.tuned, office.test, office.trainer)
    assert not is_voided(release, "")
    answered = release_answer(
        actor=proven(office.submitter), release_id=release.pk, message="Measured again."
    )
    assert len(answered.dossier["evaluations"]) == 2
    assert stale_because(answered) == ""
    assert office.approve(answered).state == ReleaseState.APPROVED


def test_who_measured_before_the_answer_decides_no_more(
    office: Office, person: Callable[..., Person]
) -> None:
    release = office.submit()
    office.decide(release, office.risk, "request_changes")
    meg = person("Meg", "developer@clinical", "reviewer:compliance")
    evaluation(office.tuned, office.test, meg)
    release_answer(actor=proven(office.submitter), release_id=release.pk, message="Measured.")
    review = release_review(release)
    assert review is not None
    assert meg.pk in review.excluded_people


def test_what_a_hook_missed_is_refused_at_the_decision_and_swept(office: Office) -> None:
    release = office.submit()
    office.attest(release)
    Release.objects.filter(pk=release.pk).update(frozen_at=timezone.now() - timedelta(days=1))
    with pytest.raises(WrongState, match="A gate was set since") as refused:
        office.decide(now(release), office.compliance)
    assert refused.value.code == "dossier_outdated"
    assert not Review.objects.get().decisions.exists()
    assert releases_void_due() == 1
    assert is_voided(release, "A gate was set since")
    assert releases_void_due() == 0


def test_the_database_keeps_no_void_without_its_reason(office: Office) -> None:
    release = office.submit()
    rows = Release.objects.filter(pk=release.pk)
    with pytest.raises(IntegrityError, match="voided_release_says"), transaction.atomic():
        rows.update(state="voided")
    rows.update(state="voided", voided_because="It changed.")
