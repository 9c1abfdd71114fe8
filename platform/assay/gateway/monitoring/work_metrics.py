"""Metrics of jobs, queues, workers, the artifact store and the controller.

The controller has no port; it writes its figures to the database (`workers.measurements`), and
these gauges read them. Labels are bounded: kinds, states, queues of live deployments, live workers,
nodes, loops.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import redis.asyncio

from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.reading import close_connection
from assay.gateway.monitoring.engine_metrics import Worker, show_loads
from assay.gateway.monitoring.exposition import Reading
from governance.quotas.wire import turns_key
from workers.database_watch import ENDED
from workers.deployments.software import controllers_differ
from workers.dropped_messages import DROPPED_MESSAGES
from workers.jobs.models import JobKind
from workers.jobs.selectors import WAITING
from workers.measurements.measuring import (
    BACKUP,
    CODE,
    JOBS,
    LOOPS,
    QUANTILES,
    REPLICAS,
    SOFTWARE,
    STORE,
    age_s,
    loops_together,
)
from workers.measurements.models import Measurement
from workers.measurements.queues import QUEUES
from workers.nodes.broker_denials import denials_total
from workers.nodes.models import Node, NodeState
from workers.nodes.states import WORKING
from workers.storage.collection import COLLECTION
from workers.wire import JOB_QUEUE, deployment_queue, load_key, presence_key

JOB_COUNT = Reading("assay_jobs", "Unfinished jobs, by kind and state.", ("kind", "state"))
JOB_AGE = Reading(
    "assay_job_oldest_age_seconds",
    "Seconds that the oldest job has waited (queued), or has run (running, finishing).",
    ("kind", "state"),
)
JOBS_ENDED = Reading(
    "assay_jobs_ended_last_hour",
    "Jobs that ended in the last hour, by kind and state.",
    ("kind", "state"),
)
JOB_WAIT = Reading(
    "assay_job_wait_seconds",
    "Seconds that jobs waited for a worker: quantiles of those that ended in the last hour.",
    ("kind", "state", "quantile"),
)
JOB_RUN = Reading(
    "assay_job_run_seconds",
    "Seconds that jobs ran: quantiles of those that ended in the last hour.",
    ("kind", "state", "quantile"),
)
REPLICA_COUNT = Reading(
    "assay_replicas",
    "Replicas of a live deployment: wanted, ready, and pending (not ready yet).",
    ("deployment", "state"),
)
QUEUE_DEPTH = Reading(
    "assay_queue_depth", "Messages that no worker has taken yet, by queue.", ("queue",)
)
QUEUE_AGE = Reading(
    "assay_queue_oldest_age_seconds",
    "Seconds that the oldest message in a live deployment's queue has waited; 0 if it is empty.",
    ("queue",),
)
WORKER_SEEN = Reading(
    "assay_worker_last_seen_seconds",
    "Seconds since a worker last reported; stopped workers are not listed.",
    ("worker",),
)
NODE_SEEN = Reading(
    "assay_node_last_seen_seconds",
    "Seconds since the last report of a node that joined and was not revoked.",
    ("node", "state"),
)
NODE_DENIED = Reading(
    "assay_node_broker_denied",
    "Commands that the broker has denied to a node since it joined.",
    ("node",),
    total=True,
)
MESSAGES_DROPPED = Reading(
    "assay_broker_messages_dropped",
    "Messages that workers dropped because no process of Assay had sent them.",
    total=True,
)
SESSIONS_ENDED = Reading(
    "assay_database_sessions_ended",
    "Sessions of the database that the controller ended, by database role.",
    ("role",),
    total=True,
)
STORE_OBJECTS = Reading("assay_store_objects", "Objects in the artifact store, by part.", ("part",))
STORE_BYTES = Reading("assay_store_bytes", "Bytes in the artifact store, by part.", ("part",))
STORE_UNNEEDED = Reading("assay_store_unneeded_bytes", "Bytes in the store that are not needed.")
STORE_FAULTS = Reading(
    "assay_store_faults",
    "Files of the store that are missing, of the wrong size (damaged) or unknown.",
    ("kind",),
)
STORE_CHECK_AGE = Reading(
    "assay_store_check_age_seconds", "Seconds since the contents of the store were checked."
)
COLLECT_AGE = Reading(
    "assay_store_collection_age_seconds", "Seconds since garbage collection of the store ran."
)
COLLECT_FAILED = Reading(
    "assay_store_collection_failed", "1 while the last garbage collection failed."
)
COLLECTED = Reading(
    "assay_store_collected_bytes", "Bytes that the last garbage collection removed."
)
BACKUP_AGE = Reading(
    "assay_backup_age_seconds", "Seconds since `assay backup make` last succeeded; absent before."
)
REPORT_AGE = Reading(
    "assay_controller_report_age_seconds", "Seconds since a controller reported its figures."
)
LOOP_AGE = Reading(
    "assay_controller_loop_success_age_seconds",
    "Seconds since the last successful round of a loop.",
    ("loop",),
)
LOOP_EVERY = Reading(
    "assay_controller_loop_interval_seconds", "Seconds between two rounds of a loop.", ("loop",)
)
LOOP_LAST = Reading(
    "assay_controller_loop_duration_seconds", "Seconds that a loop's last round took.", ("loop",)
)
LOOP_FAILING = Reading(
    "assay_controller_loop_failing", "Failures of a loop since its last success.", ("loop",)
)
CODE_DIFFERS = Reading(
    "assay_task_code_differs",
    "Workers whose packages of a task differ from the controller's, and controllers whose packages "
    "differ from this process's.",
    ("task",),
)
ANSWERS_CHANGED = Reading(
    "assay_release_answers_changed",
    "Environments in use in which a live deployment's answers differ from its dossier's, or cannot "
    "be compared.",
    ("deployment",),
)
PROVIDER_DIFFERS = Reading(
    "assay_provider_differs",
    "Names of models that a provider's answers stated in the last two hours, and that the approved "
    "description does not name.",
    ("deployment",),
)
# More workers than a machine runs, so that a compromised node cannot add unlimited labels.
_MOST_WORKERS = 64
# Of all workers that are not on nodes.
_MOST_OWN_WORKERS = 1_024
# Age of the figures of queues from which they are not shown any more, in seconds.
_QUEUES_KEPT_S = 60.0
# Realms of the nodes in use at the last `measure_work`.
_realms: list[str] = []


async def measure_work(deployments: Iterable[str]) -> None:
    """Update the gauges of jobs, nodes, store and controller with two queries.

    `deployments` are the names of live deployments.

    Raises:
        django.db.Error: the database does not answer; the gauges keep their values.
    """
    rows, nodes = await asyncio.to_thread(_read)
    NODE_SEEN.clear()
    NODE_DENIED.clear()
    _realms[:] = [node.realm for node in nodes if node.state in WORKING]
    for node in nodes:
        if node.seen_at is not None:
            NODE_SEEN.labels(node.name, node.state).set(age_s(node.seen_at.timestamp()))
            NODE_DENIED.labels(node.name).set(denials_total(node))
    reports = [row.figures for row in rows.values() if row.name.startswith(LOOPS)]
    newest = [row.measured_at.timestamp() for row in rows.values() if row.name.startswith(LOOPS)]
    if newest:
        REPORT_AGE.set(age_s(max(newest)))
    _show_loops(loops_together(reports))
    if dropped := rows.get(DROPPED_MESSAGES):
        MESSAGES_DROPPED.set(dropped.figures["total"])
    if ended := rows.get(ENDED):
        for role, count in ended.figures["total"].items():
            SESSIONS_ENDED.labels(role).set(count)
    if jobs := rows.get(JOBS):
        _show_jobs(jobs.figures)
    if replicas := rows.get(REPLICAS):
        _show_replicas(replicas.figures)
    if backup := rows.get(BACKUP):
        BACKUP_AGE.set(age_s(backup.measured_at.timestamp()))
    _show_queues(rows.get(QUEUES), deployments)
    controllers = [row.figures for row in rows.values() if row.name.startswith(CODE)]
    _show_software(rows.get(SOFTWARE), controllers_differ(controllers))
    if store := rows.get(STORE):
        _show_store(store)
    if collection := rows.get(COLLECTION):
        COLLECT_AGE.set(age_s(collection.measured_at.timestamp()))
        COLLECT_FAILED.set(collection.figures["failed"])
        COLLECTED.set(collection.figures["bytes"])


def _read() -> tuple[dict[str, Measurement], list[Node]]:
    """Return the measurements by name, and the nodes in use that have reported."""
    try:
        nodes = Node.objects.exclude(state=NodeState.REVOKED).filter(seen_at__isnull=False)
        nodes = nodes.only("name", "state", "seen_at", "public_key", "broker_denials")
        return Measurement.objects.in_bulk(), list(nodes)
    finally:
        close_connection()


async def measure_broker(
    client: redis.asyncio.Redis, deployments: Collection[DeploymentEntry]
) -> None:
    """Update the gauges of queues, workers and engines in two round trips.

    `deployments` are the live ones, primaries and targets.

    Raises:
        redis.RedisError, OSError: the broker does not answer; the gauges keep their values.
    """
    now = time.time()
    async with client.pipeline(transaction=False) as pipe:
        realms = ["", *_realms]
        for realm in realms:
            most = _MOST_WORKERS if realm else _MOST_OWN_WORKERS
            pipe.zrange(presence_key(realm), -most, -1, withscores=True)
        pipe.llen(JOB_QUEUE)
        for entry in deployments:
            pipe.llen(deployment_queue(entry.id))
            pipe.hget(turns_key(deployment_queue(entry.id)), "length")
        answers = await pipe.execute()
    present, (jobs, *depths) = answers[: len(realms)], answers[len(realms) :]
    QUEUE_DEPTH.clear()
    QUEUE_DEPTH.labels(JOB_QUEUE).set(jobs)
    by_name = Counter[str]()
    for entry, depth, behind in zip(deployments, depths[::2], depths[1::2], strict=True):
        by_name[entry.name] += depth + int(behind or 0)
    for name, waiting in by_name.items():
        QUEUE_DEPTH.labels(name).set(waiting)
    WORKER_SEEN.clear()
    found: list[Worker] = []
    for realm, workers in zip(realms, present, strict=True):
        for name, seen_at in workers:
            found.append(Worker(realm, name.decode(errors="replace")))
            WORKER_SEEN.labels(found[-1].label).set(max(0.0, now - seen_at))
    reports: list[Any] = []
    if found:
        reports = await client.mget([load_key(each.realm, each.name) for each in found])
    show_loads(zip(found, reports, strict=True), deployments)


def _show_jobs(figures: dict[str, Any]) -> None:
    JOB_AGE.clear()
    for kind in JobKind.values:
        for state in WAITING:
            JOB_COUNT.labels(kind, state.value).set(0)
    for row in figures["waiting"]:
        JOB_COUNT.labels(row["kind"], row["state"]).set(row["count"])
        JOB_AGE.labels(row["kind"], row["state"]).set(age_s(row["since"]))
    for gauge in (JOBS_ENDED, JOB_WAIT, JOB_RUN):
        gauge.clear()
    for row in figures["ended"]:
        kind, state = row["kind"], row["state"]
        JOBS_ENDED.labels(kind, state).set(row["count"])
        for gauge, values in ((JOB_WAIT, row["wait_s"]), (JOB_RUN, row["run_s"])):
            # None: jobs that were canceled before they ran.
            for quantile, value in zip(QUANTILES, values or (), strict=False):
                gauge.labels(kind, state, str(quantile)).set(value)


def _show_queues(row: Measurement | None, deployments: Iterable[str]) -> None:
    QUEUE_AGE.clear()
    if row is None or age_s(row.measured_at.timestamp()) > _QUEUES_KEPT_S:
        return
    for name in deployments:
        QUEUE_AGE.labels(name).set(row.figures["ages"].get(name, 0.0))


def _show_replicas(figures: dict[str, dict[str, int]]) -> None:
    REPLICA_COUNT.clear()
    for name, counts in figures.items():
        for state, count in counts.items():
            REPLICA_COUNT.labels(name, state).set(count)


def _show_software(row: Measurement | None, controllers: Mapping[str, int]) -> None:
    figures = {"code": {}, "answers": {}} if row is None else row.figures
    for gauge in (CODE_DIFFERS, ANSWERS_CHANGED, PROVIDER_DIFFERS):
        gauge.clear()
    for task in {*figures["code"], *controllers}:
        CODE_DIFFERS.labels(task).set(figures["code"].get(task, 0) + controllers.get(task, 0))
    for deployment, count in figures["answers"].items():
        ANSWERS_CHANGED.labels(deployment).set(count)
    # Controllers of earlier versions do not count them.
    for deployment, count in figures.get("stated", {}).items():
        PROVIDER_DIFFERS.labels(deployment).set(count)


def _show_store(row: Measurement) -> None:
    STORE_CHECK_AGE.set(age_s(row.measured_at.timestamp()))
    STORE_UNNEEDED.set(row.figures["unneeded_bytes"])
    for gauge, name in ((STORE_OBJECTS, "objects"), (STORE_BYTES, "bytes")):
        gauge.clear()
        for part, value in row.figures[name].items():
            gauge.labels(part).set(value)
    for kind in ("missing", "damaged", "unknown"):
        STORE_FAULTS.labels(kind).set(row.figures["faults"].get(kind, 0))


def _show_loops(loops: dict[str, dict[str, float]]) -> None:
    for gauge in (LOOP_AGE, LOOP_EVERY, LOOP_LAST, LOOP_FAILING):
        gauge.clear()
    for name, figures in loops.items():
        LOOP_EVERY.labels(name).set(figures["every_s"])
        LOOP_LAST.labels(name).set(figures["last_s"])
        LOOP_FAILING.labels(name).set(figures["failing"])
        LOOP_AGE.labels(name).set(age_s(figures["succeeded_at"]))
