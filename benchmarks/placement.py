"""Placement of 2,000 deployments on 200 nodes by the controller's code, on PostgreSQL.

The subject is one round: read all rows, plan, and write the assignments. Four fifths of the
deployments are adapters on 400 bases; each node has 64 GB.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from benchmarks.stores import own_stores

if TYPE_CHECKING:
    from workers.placement.planning import Plan

NODES, DEPLOYMENTS = 200, 2000


def run(*, quick: bool = False) -> None:
    """Start separate stores, simulate, print, and stop them. Django must not be set up yet."""
    with own_stores():
        scale = 10 if quick else 1
        _simulate(NODES // scale, DEPLOYMENTS // scale)


def _simulate(nodes: int, deployments: int) -> None:
    from django.utils import timezone

    from tests.fleets import deployments_make, loads_all, workers_make
    from workers.deployments.models import Deployment, DeploymentState, WorkerKey
    from workers.placement.assigning import placements_update
    from workers.placement.models import Placement

    logging.getLogger("workers.placement").setLevel(logging.WARNING)
    workers_make(nodes)
    deployments_make(deployments)
    print(f"{nodes} nodes, {deployments} deployments")  # noqa: T201
    print(f"{'':28}{'plan':>10}{'round':>10}{'moves':>8}{'waiting':>9}{'queries':>9}")  # noqa: T201

    def workers_report() -> None:
        WorkerKey.objects.exclude(seen_at=None).update(seen_at=timezone.now())

    workers_report()
    _round("first placement", placements_update)
    loads_all()
    workers_report()
    _round("nothing changed", placements_update)
    lost = Placement.objects.order_by("worker").values_list("worker", flat=True)[0]
    WorkerKey.objects.filter(worker=lost).update(seen_at=None)
    workers_report()
    _round("a node lost", placements_update)
    loads_all()
    churn = max(1, deployments // 100)
    ended = list(Deployment.objects.order_by("pk").values_list("pk", flat=True)[:churn])
    Deployment.objects.filter(pk__in=ended).update(
        state=DeploymentState.STOPPED, stopped_at=timezone.now() - timedelta(seconds=1)
    )
    deployments_make(churn, first=deployments)
    workers_report()
    _round(f"{churn} ended, {churn} new", placements_update)


def _round(name: str, update: Callable[[], Plan | None]) -> None:
    from unittest import mock

    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from workers.placement import assigning

    planned = 0.0
    plan = assigning.plan

    def timed(*arguments: object) -> Plan:
        nonlocal planned
        started = time.perf_counter()
        outcome = plan(*arguments)  # type: ignore[arg-type]
        planned = time.perf_counter() - started
        return outcome

    with mock.patch.object(assigning, "plan", timed), CaptureQueriesContext(connection) as queries:
        started = time.perf_counter()
        outcome = update()
        took = time.perf_counter() - started
    if outcome is None:
        raise RuntimeError("Another session placed.")
    print(  # noqa: T201
        f"{name:28}{1000 * planned:>7.0f} ms{1000 * took:>7.0f} ms{len(outcome.moves):>8}"
        f"{len(outcome.shortages):>9}{len(queries):>9}"
    )


if __name__ == "__main__":
    run(quick="--quick" in sys.argv)
