"""One function gives the verdict to gateway, worker and controller, row by row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from assay.gateway.access.reading import read_snapshot
from registry.canonical import json_digest
from registry.releases.models import Release
from registry.releases.serving import ServingVerdict, serving_verdicts
from tests.live.celery_worker import process_url
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.unit.workers.test_deployments_reconciler import Worker, worker
from workers.deployments.alarms import leases_lapsed, releases_unreadable
from workers.deployments.leases import leases_renew
from workers.deployments.models import Deployment, Replica, ServingLease
from workers.deployments.selectors import HEAVY, live_deployments
from workers.deployments.services import deployment_create, deployments_stop_unservable

__all__ = ["worker"]

pytestmark = pytest.mark.django_db


def deployed(name: str) -> Deployment:
    approved = release(adapter(name.encode()), name=name)
    return deployment_create(actor=company.developer(), release_id=approved.pk)


def poison(deployment: Deployment) -> None:
    """A dossier without an identity, under its own digest."""
    Release.objects.filter(pk=deployment.release_id).update(
        dossier={"release": {}}, dossier_digest=json_digest({"release": {}})
    )


def verdict_on(pk: int, *, deferred: bool) -> ServingVerdict:
    rows = Release.objects.select_related("version__model", "version__base__model")
    if deferred:
        rows = rows.defer(*(each.removeprefix("release__") for each in HEAVY))
    return serving_verdicts([rows.get(pk=pk)])[pk]


@pytest.mark.django_db(transaction=True)
def test_a_release_that_cannot_be_read_stops_itself_alone(worker: Worker) -> None:
    bad, good = deployed("bad"), deployed("good")
    worker.reconcile()
    poison(bad)
    worker.reconcile()
    assert worker.host.loaded().keys() == {good.pk}
    failed = Replica.objects.get(deployment=bad)
    assert (failed.state, "cannot be read (KeyError: 'identity')" in failed.message) == (
        "failed",
        True,
    )
    assert deployments_stop_unservable() == 0
    leases_renew()
    left = {each.name: each.lease_s > 0 for each in live_deployments()}  # type: ignore[attr-defined]
    assert left == {"bad": False, "good": True}
    assert "bad: Release" in releases_unreadable()
    assert "good" not in releases_unreadable()
    found = read_snapshot().deployments
    assert "cannot be read" in found["bad"].obstacle
    assert found["good"].obstacle == ""


def test_a_reading_is_the_same_whether_or_not_the_dossier_was_read(worker: Worker) -> None:
    deployment = deployed("docs")
    pk = deployment.release_id
    changes: list[tuple[dict[str, Any], str]] = [
        ({}, ""),
        ({"visibility": "organization"}, "approved with other visibility"),
        ({"dossier_digest": "0" * 64}, "does not have the digest that was approved"),
        ({"dossier": {"identity": {}}}, "does not have the digest that was approved"),
        ({"dossier": [1], "dossier_digest": json_digest([1])}, "cannot be read"),
        ({"dossier": "text", "dossier_digest": json_digest("text")}, "cannot be read"),
        ({"state": "withdrawn"}, "is withdrawn"),
        ({"expires_at": timezone.now()}, "expired on"),
    ]
    honest = Release.objects.filter(pk=pk).values().get()
    for change, sentence in changes:
        Release.objects.filter(pk=pk).update(**{**honest, **change})
        said = [verdict_on(pk, deferred=deferred).refusal for deferred in (False, True)]
        assert str(said[0]) == str(said[1])
        assert sentence in str(said[0] or ""), change
        assert (said[0] is None) is (sentence == "")


def test_a_dossier_that_cannot_be_parsed_stops_its_release_alone(worker: Worker) -> None:
    bad, good = deployed("bad"), deployed("good")
    with connection.cursor() as cursor:
        # More digits than Python reads as a number.
        cursor.execute(
            "UPDATE registry_release SET dossier = "
            "jsonb_build_object('n', repeat('9', 5000)::numeric) WHERE id = %s",
            [bad.release_id],
        )
    verdicts = serving_verdicts([deployment.release for deployment in live_deployments()])
    assert not verdicts[bad.release_id].readable
    assert verdicts[good.release_id].refusal is None


def test_a_verdict_takes_the_same_queries_however_much_is_live(
    worker: Worker, django_assert_num_queries: Callable[[int], Any]
) -> None:
    for name in ("one", "two", "three"):
        deployed(name)
    rows = [deployment.release for deployment in live_deployments()]
    serving_verdicts(rows)
    # The dossiers are known by now, so that none is read.
    for count in (1, 3):
        with django_assert_num_queries(8):
            assert all(each.refusal is None for each in serving_verdicts(rows[:count]).values())


def test_a_lease_is_renewed_while_the_release_may_serve_and_no_longer() -> None:
    deployment = deployed("docs")
    (first,) = live_deployments()
    assert 0 < first.lease_s <= 30  # type: ignore[attr-defined]
    assert leases_renew() == 0
    ServingLease.objects.update(servable_until=timezone.now() - timedelta(seconds=1))
    Deployment.objects.update(state="serving")
    assert leases_lapsed() == "Not confirmed by the controller, so not serving: docs."
    assert leases_renew() == 1
    assert leases_lapsed() == ""
    Release.objects.filter(pk=deployment.release_id).update(state="withdrawn")
    ServingLease.objects.update(servable_until=timezone.now() + timedelta(seconds=1))
    assert leases_renew() == 0


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_locks_every_row_it_can_keeps_no_deployment_from_its_lease() -> None:
    deployed("held"), deployed("free")
    ServingLease.objects.update(servable_until=timezone.now())
    with psycopg.connect(process_url("worker")) as worker:
        worker.execute("SELECT * FROM workers_deployment FOR UPDATE")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), worker.transaction():
            worker.execute("SELECT * FROM workers_servinglease FOR KEY SHARE")
        assert leases_renew() == 2
    assert all(each.lease_s > 0 for each in live_deployments())  # type: ignore[attr-defined]
