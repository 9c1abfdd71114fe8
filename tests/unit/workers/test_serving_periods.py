"""From when to when a deployment served is kept as it moves, and cannot be changed afterward."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.rowsecurity import scope
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.models import (
    Deployment,
    DeploymentState,
    Replica,
    ReplicaState,
    ServingPeriod,
)
from workers.deployments.services import (
    deployment_create,
    deployment_stop,
    replica_report,
    replicas_expire,
)
from workers.deployments.states import period_keep

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def deployed(content: bytes = b"adapter") -> Deployment:
    of = release(adapter(content))
    return deployment_create(actor=company.developer(), release_id=of.pk)


def ready(deployment: Deployment, worker: str = "e1", digest: str = "") -> None:
    replica_report(
        deployment_id=deployment.pk,
        worker=worker,
        state=ReplicaState.READY,
        loaded_digest=digest or deployment.release.version.digest,
    )


def test_nothing_served_before_a_replica_was_ready() -> None:
    deployed()
    assert not ServingPeriod.objects.exists()


def test_a_period_begins_with_the_first_ready_replica_at_the_time_of_its_event() -> None:
    deployment = deployed()
    ready(deployment)
    ready(deployment, "e2")
    period = ServingPeriod.objects.get()
    event = AuditEvent.objects.get(action="deployment:serve")
    assert (period.began_event_id, period.serving_from) == (event.pk, event.occurred_at)
    assert period.digest == deployment.release.version.digest
    assert (period.serving_until, period.ended_as, period.ended_event_id) == (None, "", None)


def test_a_stop_closes_it_though_nobody_who_stops_may_write_history() -> None:
    deployment = deployed()
    ready(deployment)
    lead = company.person("lea", "lead", "clinical")
    with scope(lead):
        deployment_stop(actor=lead, deployment_id=deployment.pk, reason="Wrong answers.")
    period = ServingPeriod.objects.get()
    event = AuditEvent.objects.get(action="deployment:stop")
    assert (period.ended_as, period.ended_event_id) == ("stopped", event.pk)
    assert period.serving_until == event.occurred_at
    with scope(lead), pytest.raises(DatabaseError), transaction.atomic():
        ServingPeriod.objects.create(
            deployment=deployment, digest="0" * 64, serving_from=timezone.now(), began_event=event
        )


def test_a_deployment_that_lost_its_replicas_serves_again_in_a_period_of_its_own() -> None:
    deployment = deployed()
    ready(deployment)
    Replica.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=16))
    replicas_expire()
    ready(deployment)
    newer, older = ServingPeriod.objects.all()
    assert (older.ended_as, newer.serving_until) == ("pending", None)
    assert older.serving_until is not None
    assert older.serving_until <= newer.serving_from


def test_a_replica_of_other_bytes_ends_it_as_refused_and_begins_none() -> None:
    deployment = deployed()
    ready(deployment)
    ready(deployment, "e1", "0" * 64)
    assert ServingPeriod.objects.get().ended_as == "refused"


def test_what_is_replaced_ends_and_what_replaces_it_begins_when_it_is_ready() -> None:
    old = deployed()
    ready(old)
    new = deployed(b"better")
    assert ServingPeriod.objects.get().ended_as == "stopped"
    ready(new)
    assert list(new.periods.values_list("serving_until", flat=True)) == [None]


def test_what_never_served_leaves_no_period_when_it_is_stopped() -> None:
    deployment = deployed()
    deployment_stop(actor=company.person("lea", "lead", "clinical"), deployment_id=deployment.pk)
    assert not ServingPeriod.objects.exists()


def test_a_state_that_was_set_past_its_machine_keeps_nothing_from_serving() -> None:
    deployment = deployed()
    ready(deployment)
    Deployment.objects.filter(pk=deployment.pk).update(state=DeploymentState.PENDING)
    ready(deployment, "e2")
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.SERVING
    assert ServingPeriod.objects.get().serving_until is None
    Deployment.objects.filter(pk=deployment.pk).update(state=DeploymentState.PENDING)
    deployment_stop(actor=company.person("lea", "lead", "clinical"), deployment_id=deployment.pk)
    assert ServingPeriod.objects.get().ended_as == "stopped"


@pytest.mark.parametrize("minutes", [-5, 0])
def test_a_period_that_ends_by_a_slower_clock_ends_where_it_began(minutes: int) -> None:
    deployment = deployed()
    ready(deployment)
    period = ServingPeriod.objects.get()
    event = AuditEvent.objects.get(pk=period.began_event_id)
    event.occurred_at = period.serving_from + timedelta(minutes=minutes)
    deployment.state = DeploymentState.PENDING
    period_keep(deployment=deployment, event=event)
    deployment.state = DeploymentState.SERVING
    period_keep(deployment=deployment, event=event)
    newer, older = ServingPeriod.objects.all()
    assert older.serving_until == older.serving_from == newer.serving_from


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE workers_servingperiod SET serving_from = serving_from - interval '1 day'",
        "UPDATE workers_servingperiod SET digest = repeat('0', 64)",
        "UPDATE workers_servingperiod SET serving_until = NULL, ended_as = '', "
        "ended_event_id = NULL",
        "UPDATE workers_servingperiod SET serving_until = serving_until + interval '1 day'",
        "DELETE FROM workers_servingperiod",
        "TRUNCATE workers_servingperiod",
        "INSERT INTO workers_servingperiod (deployment_id, digest, serving_from, serving_until, "
        "ended_as, began_event_id, ended_event_id) SELECT deployment_id, digest, serving_from, "
        "serving_until, ended_as, began_event_id, ended_event_id FROM workers_servingperiod",
    ],
)
def test_the_database_refuses_another_history(change: str) -> None:
    deployment = deployed()
    ready(deployment)
    deployment_stop(actor=company.person("lea", "lead", "clinical"), deployment_id=deployment.pk)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            cursor.execute(change)


def test_a_deployment_has_one_open_period_and_none_ends_before_it_began() -> None:
    deployment = deployed()
    ready(deployment)
    period = ServingPeriod.objects.get()
    same: dict[str, Any] = {"deployment": deployment, "digest": period.digest}
    with pytest.raises(IntegrityError, match="one_open_period"), transaction.atomic():
        ServingPeriod.objects.create(
            **same, serving_from=timezone.now(), began_event=period.began_event
        )
    period.serving_until = period.serving_from - timedelta(seconds=1)
    period.ended_as, period.ended_event = "stopped", period.began_event
    with pytest.raises(IntegrityError, match="ends_after_it_began"), transaction.atomic():
        period.save()
    period.serving_until, period.ended_as = timezone.now(), ""
    with pytest.raises(IntegrityError, match="says_how"), transaction.atomic():
        period.save()


def test_another_department_sees_none_of_it_whatever_the_query() -> None:
    deployment = deployed()
    ready(deployment)
    with scope(company.developer("finance")):
        assert not ServingPeriod.objects.exists()
    with scope(company.developer()):
        assert ServingPeriod.objects.count() == 1
