"""Deciding at once, twice, and against what ends a review, on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from governance.errors import DomainError
from governance.people.models import Department, Person
from governance.principals import Principal
from governance.reviews.models import ReviewState
from registry.incidents.services import incident_open
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_review
from registry.releases.services import release_withdraw
from tests.proofs import proven
from tests.unit.registry.objects import evaluation, version
from tests.unit.registry.office import Office
from tests.unit.registry.test_recall_races import one_after_another, recalling

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


@pytest.fixture
def office(
    policy: object, person: Callable[..., Person], department: Callable[[str], Department]
) -> Office:
    return Office(person, department)


def votes(release: Release) -> list[tuple[str, str]]:
    review = release_review(release)
    assert review is not None
    found = review.decisions.exclude(verdict="comment").order_by("pk")
    return [(each.person.name, each.verdict) for each in found]


def one_missing(office: Office, **changes: Any) -> Release:
    """Approved by all but the one for model risk."""
    release = office.submit(**changes)
    office.attest(release)
    return office.decide(release, office.compliance)


def states(release: Release) -> tuple[str, str]:
    review = release_review(release)
    assert review is not None
    return Release.objects.get(pk=release.pk).state, review.state


def test_two_at_once_both_count_in_one_order(office: Office) -> None:
    release = office.submit()
    office.attest(release)
    first, second = one_after_another(
        lambda: office.decide(release, office.compliance),
        lambda: office.decide(release, office.risk),
    )
    assert (first.state, second.state) == (ReleaseState.IN_REVIEW, ReleaseState.APPROVED)
    assert votes(release) == [("Carla", "approve"), ("Milo", "approve")]


def test_a_rejection_first_refuses_the_approval_that_waited(office: Office) -> None:
    release = office.submit()
    office.attest(release)
    first, second = one_after_another(
        lambda: office.decide(release, office.risk, "reject"),
        lambda: office.decide(release, office.compliance),
    )
    assert first.state == ReleaseState.REJECTED
    assert (second.status, second.code) == (409, "wrong_state")
    assert votes(release) == [("Milo", "reject")]


def test_the_same_person_at_once_votes_once(office: Office) -> None:
    release = office.submit()
    office.attest(release)
    _, second = one_after_another(
        lambda: office.decide(release, office.compliance),
        lambda: office.decide(release, office.compliance, "reject"),
    )
    assert isinstance(second, DomainError)
    assert "a second vote is refused" in second.message
    assert votes(release) == [("Carla", "approve")]


@pytest.mark.parametrize("void_first", [True, False])
def test_the_last_approval_and_an_evaluation(office: Office, void_first: bool) -> None:
    release = one_missing(office)

    def approve() -> Release:
        return office.decide(release, office.risk)

    def measure() -> Any:
        return evaluation(office.tuned, office.test, office.trainer)

    if void_first:
        _, refused = one_after_another(measure, approve)
        assert refused.status == 409
        assert states(release) == (ReleaseState.VOIDED, ReviewState.VOIDED)
        assert votes(release) == [("Carla", "approve")]
    else:
        approved, _ = one_after_another(approve, measure)
        assert approved.state == ReleaseState.APPROVED
        assert states(release) == (ReleaseState.APPROVED, ReviewState.APPROVED)


@pytest.mark.parametrize("end_first", [True, False])
@pytest.mark.parametrize("end", ["withdraw", "recall"])
def test_the_last_approval_and_what_ends_it(
    office: Office, actor: Callable[..., Principal], end: str, end_first: bool
) -> None:
    release = one_missing(office)
    ada = actor("Ada", "admin")

    def approve() -> Release:
        return office.decide(release, office.risk)

    def ends() -> Any:
        if end == "withdraw":
            lead = proven(office.submitter)
            return release_withdraw(actor=lead, release_id=release.pk, reason="Not needed.")
        return recalling(ada, office.tuned)()

    if end_first:
        _, refused = one_after_another(ends, approve)
        assert refused.status == 409
        assert votes(release) == [("Carla", "approve")]
    else:
        approved, _ = one_after_another(approve, ends)
        assert approved.approved_at is not None
    over = ReleaseState.WITHDRAWN if end == "withdraw" else ReleaseState.RECALLED
    assert states(release)[0] == over


def test_of_two_last_approvals_for_one_place_the_second_is_void(office: Office) -> None:
    """Each replaces nothing by its dossier, which is not true of the second any more."""
    rival = version(
        office.tuned.model, office.trainer, "full", office.base, dataset_version=office.train
    )
    evaluation(rival, office.test, office.trainer)
    first, second = one_missing(office), one_missing(office, version=rival)
    approved, refused = one_after_another(
        lambda: office.decide(first, office.risk), lambda: office.decide(second, office.risk)
    )
    assert approved.state == ReleaseState.APPROVED
    assert refused.status == 409
    assert states(second) == (ReleaseState.VOIDED, ReviewState.VOIDED)
    assert votes(second) == [("Carla", "approve")]


def test_two_last_approvals_that_both_began_make_no_circle(office: Office) -> None:
    """Neither holds its row while it waits for the other's: threads from one start."""
    rival = version(
        office.tuned.model, office.trainer, "full", office.base, dataset_version=office.train
    )
    evaluation(rival, office.test, office.trainer)
    pair = one_missing(office), one_missing(office, version=rival)
    start = threading.Barrier(2)
    results: list[Any] = []

    def run(release: Release) -> None:
        start.wait()
        try:
            results.append(office.decide(release, office.risk).state)
        except DomainError as error:
            results.append(error.status)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(release,)) for release in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["409", "approved"]
    assert sorted(states(release)[0] for release in pair) == ["approved", "voided"]


@pytest.mark.parametrize("measured_first", [True, False])
@pytest.mark.parametrize("end", ["recall", "incident"])
def test_a_measurement_that_voids_and_what_ends_its_version(
    office: Office, actor: Callable[..., Principal], end: str, measured_first: bool
) -> None:
    """Both reach the version and its releases, and neither waits for the other in a circle."""
    release = one_missing(office)
    ada = actor("Ada", "admin")

    def measure() -> Any:
        return evaluation(office.tuned, office.test, office.trainer)

    def ends() -> Any:
        if end == "recall":
            return recalling(ada, office.tuned)()
        return incident_open(
            actor=ada,
            title="Wrong doses",
            happened="Ten times the dose.",
            severity="critical",
            versions=[office.tuned.pk],
        )

    order = (measure, ends) if measured_first else (ends, measure)
    first, second = one_after_another(*order)
    assert (first is not None, second is not None) == (True, True)
    assert office.tuned.evaluations.count() == 2
    recalled = end == "recall" and not measured_first
    over = ReleaseState.RECALLED if recalled else ReleaseState.VOIDED
    assert states(release) == (over, ReviewState.VOIDED)
