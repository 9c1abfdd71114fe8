"""Health of a deployment: figures over time, phases, changes, and who may see them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.database.statements import statements_within
from governance.errors import NotFound, NotPermitted, Unavailable
from governance.policy.models import PolicyVersion
from governance.usage.models import UsageRecord
from governance.usage.performance import Percentiles, Phases, Span, Window
from registry.sandbox.places import FairPlaces
from tests.unit.policy_support import install_rules
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.health import Health, deployment_health, explanation
from workers.deployments.models import Deployment
from workers.deployments.services import deployment_create
from workers.deployments.states import DeploymentState, deployment_move
from workers.placement.services import deployment_place
from workers.placement.settings import ReplicaSettings

pytestmark = pytest.mark.django_db


def deployed(name: str = "docs") -> Deployment:
    approved = release(adapter(name.encode()), name=name)
    return deployment_create(actor=company.developer(), release_id=approved.pk)


def used(count: int = 1, **values: Any) -> None:
    number = UsageRecord.objects.count()
    defaults = {
        "occurred_at": timezone.now(),
        "department": "clinical",
        "deployment": "docs",
        "endpoint": "/v1/chat/completions",
        "outcome": "ok",
    }
    UsageRecord.objects.bulk_create(
        UsageRecord(request_id=f"req_{number + each}", **{**defaults, **values})
        for each in range(count)
    )


def health(deployment: Deployment, span: Span = Span.HOUR, **actor: Any) -> Health:
    viewer = actor.get("actor") or company.developer()
    return deployment_health(actor=viewer, deployment_id=deployment.pk, span=span)


def test_figures_have_percentiles_errors_tokens_and_cost_by_step() -> None:
    deployment = deployed()
    now = timezone.now()  # One time for all records, so that they fall into the same step.
    for milliseconds in range(1, 101):
        used(
            total_ms=milliseconds * 10,
            prompt_tokens=7,
            completion_tokens=3,
            cost_micro=5,
            occurred_at=now,
        )
    used(5, outcome="failed", total_ms=90_000, occurred_at=now)
    used(20, outcome="canceled", total_ms=90_000, occurred_at=now)
    used(1, total_ms=4_000, occurred_at=now - timedelta(minutes=30))
    used(1, total_ms=4_000, occurred_at=now - timedelta(hours=2))
    used(1, endpoint="jobs/evaluate", total_ms=900_000)
    figures = health(deployment).performance
    total, newest = figures.total, [point for point in figures.points if point.requests][-1]
    assert (total.requests, total.failed, total.canceled) == (126, 5, 20)
    assert total.error_rate == pytest.approx(5 / 106)
    assert (total.units, total.unit, total.cost_micro) == (1_000, "tokens", 500)
    assert newest.latency == Percentiles(500, 950, 990)
    assert total.first_token is None
    assert len(figures.points) == 30
    assert sum(point.requests for point in figures.points) == 126
    assert figures.points[0].latency is None


def test_phases_of_the_slowest_answers_explain_them() -> None:
    deployment = deployed()
    used(94, total_ms=1_000, queue_ms=100, first_token_ms=300)
    used(6, total_ms=10_000, queue_ms=8_000, first_token_ms=8_500)
    answer = health(deployment)
    slowest = answer.performance.slowest
    assert (slowest.requests, slowest.queue, slowest.prefill) == (6, 8_000, 500)
    assert slowest.shares["stream"] == pytest.approx(0.15)
    assert answer.performance.all_answers.requests == 100
    assert answer.performance.total.first_token == Percentiles(300, 8_500, 8_500)
    assert answer.explanation.startswith("Slow requests wait 80% of their time in the queue.")


def test_the_explanation_names_the_longest_phase_only_if_it_matters() -> None:
    assert "scaled to zero" in explanation(Phases(1, 9_000, 10, 0, 0, 500))
    assert "computing" in explanation(Phases(1, 0, 10, 0, 0, 500))
    assert explanation(Phases(1, 0, 30, 35, 35, 0)) == ""
    assert explanation(Phases(0, 0, 0, 0, 0, 0)) == ""


def test_changes_are_releases_replicas_and_lost_workers() -> None:
    deployment = deployed()
    policy = install_rules(PolicyVersion.objects.get().rules)
    settings = ReplicaSettings(replicas_min=2, replicas_max=4)
    operator = company.person("olga", "operator")
    deployment_place(actor=operator, deployment_id=deployment.pk, settings=settings)
    patient = replace(settings, queue_age_s=60)
    deployment_place(actor=operator, deployment_id=deployment.pk, settings=patient)
    for state in (DeploymentState.SERVING, DeploymentState.PENDING, DeploymentState.SERVING):
        deployment_move(deployment_id=deployment.pk, to=state, actor=operator)
    second = release(adapter(b"second"), name="docs")
    successor = deployment_create(actor=company.developer(), release_id=second.pk)
    texts = [change.text for change in health(successor).changes]
    assert sorted(texts) == sorted(
        [
            f"Policy {policy.number} in force",
            f"Release {second.pk} deployed: {second.version}",
            "A worker has loaded it again",
            "Lost its last worker",
            "Replicas: 1 → 2 to 4",
            "Target wait: 5 s → 60 s",
            f"Release {deployment.release_id} deployed: {deployment.release.version}",
        ]
    )
    assert AuditEvent.objects.filter(action="deployment:place").count() == 2


def test_only_usage_that_the_actor_may_view_counts() -> None:
    deployment = deployed()
    used(3, total_ms=10)
    used(2, total_ms=10, department="finance")
    assert health(deployment).performance.total.requests == 3
    operator = company.person("olga", "operator")
    assert health(deployment, actor=operator).performance.total.requests == 5
    reviewer = company.person("rita", "reviewer", specialty="security")
    with pytest.raises(NotPermitted, match="may not view usage"):
        health(deployment, actor=reviewer)
    with pytest.raises(NotFound):
        health(deployment, actor=company.developer("finance"))


def test_a_statement_that_takes_too_long_is_canceled_and_the_limit_ends_with_the_block() -> None:
    def asleep(seconds: float, limit_ms: int) -> None:
        with statements_within(limit_ms, Unavailable("Too many.")), connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [seconds])

    asleep(0, limit_ms=60_000)
    with pytest.raises(Unavailable, match="Too many"):
        asleep(20, limit_ms=500)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.6)")


def test_windows_end_with_the_current_step_and_weeks_begin_on_mondays() -> None:
    now = datetime(2026, 11, 30, 20, 31, tzinfo=UTC)
    day, weeks = Window.of(Span.DAY, now), Window.of(Span.QUARTER, now)
    assert (day.until, day.since) == (
        datetime(2026, 11, 30, 21, tzinfo=UTC),
        datetime(2026, 11, 29, 21, tzinfo=UTC),
    )
    assert {moment.weekday() for moment in weeks.moments} == {0}
    assert (len(weeks.moments), weeks.moments[-1] <= now < weeks.until) == (12, True)


def test_reads_of_busy_deployments_wait_only_briefly_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deployment = deployed()
    places = FairPlaces(1, wait_s=0.01, refusal="Too many people are reading figures.")
    monkeypatch.setattr("workers.deployments.health._places", places)
    with places.place("someone else"), pytest.raises(Unavailable, match="Too many people"):
        health(deployment)
    assert health(deployment).performance.total.requests == 0
