"""The controller judges again what a change may affect, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from governance.changes.models import ChangeHorizon
from governance.changes.services import changes_purge
from governance.people.models import Department
from governance.reviews.models import Review
from registry.incidents.models import Incident, IncidentSuspension, IncidentVersion
from registry.releases.models import Release
from registry.versions.models import ModelVersion
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.waiting import wait_until
from workers.deployments import judging
from workers.deployments.judging import Judge
from workers.deployments.leases import leases_renew
from workers.deployments.models import Deployment, ServingLease
from workers.deployments.services import deployment_create, deployments_stop_unservable

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def only_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first round nothing is judged again in turn."""
    monkeypatch.setattr(judging, "CHECK_S", 3600.0)


def deployed(name: str) -> Deployment:
    approved = release(adapter(name.encode()), name=name)
    return deployment_create(actor=company.developer(), release_id=approved.pk)


def refused(judge: Judge) -> dict[int, str]:
    """The codes of refusals after the next round."""
    *_, verdicts = judge.rounds()
    return {pk: judged.refused for pk, judged in verdicts.items() if judged.refused}


def withdraw(deployment: Deployment) -> None:
    Release.objects.filter(pk=deployment.release_id).update(state="withdrawn")


def recall(deployment: Deployment) -> None:
    version = deployment.release.version
    ModelVersion.objects.filter(pk=version.pk).update(
        state="recalled", recalled_at=timezone.now(), recalled_by=version.created_by,
        recalled_with=version, recall_reason="Wrong",
    )  # fmt: skip


def recall_base(deployment: Deployment) -> None:
    base = deployment.release.version.base
    assert base is not None
    ModelVersion.objects.filter(pk=base.pk).update(
        state="recalled", recalled_at=timezone.now(), recalled_by=base.created_by,
        recalled_with=base, recall_reason="Wrong",
    )  # fmt: skip


def widen(deployment: Deployment) -> None:
    deployment.release.departments.add(Department.objects.create(slug="other", name="Other"))


def reopen(deployment: Deployment) -> None:
    Review.objects.filter(subject_id=str(deployment.release_id)).update(state="in_review")


@pytest.mark.parametrize("change", [withdraw, recall, recall_base, widen, reopen])
def test_a_change_is_judged_in_the_next_round(change: Callable[[Deployment], None]) -> None:
    deployment = deployed("docs")
    judge = Judge()
    assert refused(judge) == {}
    change(deployment)
    assert refused(judge) == {deployment.pk: refused(Judge())[deployment.pk]}


def test_an_incident_is_judged_with_all_that_has_the_same_bytes() -> None:
    deployment = deployed("docs")
    version = deployment.release.version
    judge = Judge()
    assert refused(judge) == {}
    incident = Incident.objects.create(
        title="Wrong",
        happened="It was wrong.",
        severity="high",
        aware_at=timezone.now(),
        department=deployment.department,
        reporter=version.created_by,
    )
    IncidentVersion.objects.create(incident=incident, version=version, added_by=version.created_by)
    assert refused(judge) == {}
    IncidentSuspension.objects.create(incident=incident, excluded_people=[incident.reporter_id])
    assert refused(judge) == {deployment.pk: "incident_suspends"}


def test_what_does_not_change_is_not_judged_again(django_assert_num_queries: Any) -> None:
    for name in ("one", "two"):
        deployed(name)
    judge = Judge()
    assert leases_renew(judge) == 0
    # One reads the changes, one renews the leases that are due.
    with django_assert_num_queries(2):
        assert leases_renew(judge) == 0
    ServingLease.objects.update(servable_until=timezone.now() + timedelta(seconds=5))
    with django_assert_num_queries(2):
        assert leases_renew(judge) == 2


def test_new_deployments_are_judged_and_ended_ones_forgotten() -> None:
    first = deployed("one")
    judge = Judge()
    *_, verdicts = judge.rounds()
    assert set(verdicts) == {first.pk}
    second = deployed("two")
    Deployment.objects.filter(pk=first.pk).update(state="stopped")
    *_, verdicts = judge.rounds()
    assert set(verdicts) == {second.pk}


def test_an_approval_ends_without_a_change() -> None:
    deployment = deployed("docs")
    end = timezone.now() + timedelta(seconds=3)
    Release.objects.filter(pk=deployment.release_id).update(expires_at=end, grace_days=0)
    judge = Judge()
    refused(judge)
    wait_until(lambda: refused(judge) == {deployment.pk: "release_not_servable"})
    assert timezone.now() >= end
    ServingLease.objects.update(servable_until=timezone.now() + timedelta(seconds=5))
    assert leases_renew(judge) == 0
    assert deployments_stop_unservable(judge) == 1


def test_a_controller_that_was_away_for_long_judges_everything() -> None:
    deployment = deployed("docs")
    judge = Judge()
    assert refused(judge) == {}
    changes_purge()
    withdraw(deployment)
    for _ in range(2):
        ChangeHorizon.objects.update(taken_at=timezone.now() - timedelta(hours=1))
        changes_purge()
    assert refused(judge) == {deployment.pk: "release_not_servable"}


def test_leases_are_renewed_in_parts_and_the_first_to_end_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from workers.deployments import leases

    monkeypatch.setattr(leases, "RENEWED_AT_ONCE", 1)
    deployments = [deployed(name) for name in ("one", "two", "three")]
    for place, deployment in enumerate(deployments):
        ServingLease.objects.filter(deployment=deployment).update(
            servable_until=timezone.now() + timedelta(seconds=6 - place)
        )
    judge = Judge()
    soon = timezone.now() + timedelta(seconds=10)
    assert leases_renew(judge) == 1
    left = ServingLease.objects.filter(servable_until__lt=soon)
    assert set(left.values_list("deployment", flat=True)) == {each.pk for each in deployments[:2]}
    assert [leases_renew(judge) for _ in range(3)] == [1, 1, 0]


def test_what_no_change_named_is_judged_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a row that a superuser changed without its triggers."""
    deployment = deployed("docs")
    judge, other = Judge(), Judge(checks=False)
    assert refused(judge) == refused(other) == {}
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE registry_release DISABLE TRIGGER assay_columns_changed")
        withdraw(deployment)
        cursor.execute("ALTER TABLE registry_release ENABLE ALWAYS TRIGGER assay_columns_changed")
    assert refused(judge) == {}
    monkeypatch.setattr(judging, "CHECK_S", 0.0)
    assert refused(judge) == {deployment.pk: "release_not_servable"}
    assert refused(other) == {}
