"""Processes with their database roles, on the tests' own connection.

Tests prepare and look as the tables' owner. What a process does in production runs in tests with
the privileges of that process, so that one which is missing is found.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from weakref import WeakSet

from django.db import connection
from django.test.client import ClientHandler

from assay.database_roles.privileges import ROLES

# Entry points of each process, as `module:function` or `module:Class.method`.
WORK = {
    "web": ("workers.nodes.job_side:node_job_claim",),
    "worker": (
        "workers.jobs.leases:job_canceled",
        "workers.jobs.leases:job_claim",
        "workers.jobs.leases:job_deliver",
        "workers.jobs.leases:job_fail",
        "workers.jobs.leases:job_heartbeat",
        "workers.jobs.leases:job_paused",
        "workers.jobs.leases:job_report",
        "workers.jobs.leases:job_checkpoint",
        "workers.deployments.reconciler:Reconciler.load_missing",
        "workers.deployments.reconciler:Reconciler.settle",
        "workers.deployments.services:replica_report",
        "workers.deployments.services:replicas_heartbeat",
        "workers.deployments.services:replicas_stop",
        "workers.deployments.worker_keys:worker_key_register",
    ),
    "controller": (
        "governance.audit.alarms:alarms_check",
        "governance.audit.exports.run:export_next",
        "governance.audit.exports.run:exports_tidy",
        "governance.audit.outside.bodies:bodies_offload_due",
        "governance.audit.outside.publishing:publish_pending",
        "governance.audit.sealer:seal_once",
        "governance.audit.streaming.streamer:Streamer.step",
        "governance.people.sessions:sessions_purge",
        "governance.quotas.maintenance:QuotaMaintenance.step",
        "governance.reviews.reminders.schedule:reminders_record_due",
        "governance.reviews.reminders.sending:notices_send_due",
        "governance.reviews.waivers.services:waivers_expire_due",
        "governance.usage.collector:collect_once",
        "governance.usage.times:usage_times_add",
        "registry.releases.emergency_access.services:emergency_accesses_end_due",
        "registry.releases.validity:releases_expire_due",
        "registry.releases.validity:releases_warn_due",
        "registry.releases.voiding:releases_void_due",
        "workers.storage.archiving:months_retain",
        "workers.storage.collection:store_collect",
        "workers.storage.collection:store_collect_due",
        "workers.database_watch:SessionWatch.run",
        "workers.dropped_messages:dropped_messages_record",
        "workers.deployments.leases:leases_renew",
        "registry.batches.services:batches_purge_due",
        "registry.files.services:files_expire_due",
        "workers.deployments.services:deployments_stop_unservable",
        "workers.deployments.services:replicas_expire",
        "workers.deployments.worker_keys:worker_keys_expire",
        "workers.nodes.services:node_records_expire",
        "workers.placement.assigning:placements_update",
        "workers.placement.loads:Scaler.run",
        "workers.measurements.measuring:replicas_measure",
        "workers.routing.canary:canaries_judge",
        "workers.jobs.pausing:paused_jobs_expire",
        "workers.jobs.finishing:job_finish",
        "workers.jobs.finishing:jobs_finish_due",
        "workers.jobs.sweeping:job_sweep",
    ),
}

# Connections that have a process's role; asking PostgreSQL would be one more statement a request.
_acting: WeakSet[Any] = WeakSet()


@contextmanager
def acting_as(process: str) -> Iterator[None]:
    """Everything on the present connection has the privileges of `process`.

    The session itself becomes the role's, so that no `SET ROLE` leads back. What one process calls
    of another's is its own work. Past Django's cursor, which counts queries.
    """
    connection.ensure_connection()
    raw = connection.connection
    if raw in _acting:
        yield
        return
    raw.execute(f"SET SESSION AUTHORIZATION {ROLES[process].name}")
    _acting.add(raw)
    try:
        yield
    finally:
        _acting.discard(raw)
        # In a transaction that broke, its rollback undoes it; a closed connection has no session.
        if not raw.closed and raw.info.transaction_status.name != "INERROR":
            raw.execute("RESET SESSION AUTHORIZATION")


@contextmanager
def stepped_out() -> Iterator[None]:
    """Leave the process that acts, for what its request has another process do."""
    raw = connection.connection
    if raw not in _acting:
        yield
        return
    (role,) = raw.execute("SELECT session_user").fetchone()
    raw.execute("RESET SESSION AUTHORIZATION")
    _acting.discard(raw)
    try:
        yield
    finally:
        raw.execute(f"SET SESSION AUTHORIZATION {role}")
        _acting.add(raw)


def play_processes() -> None:
    """Give all that is listed in `WORK`, and every request of a test client, its process's role.

    Before tests are imported, since they and the modules hold functions by name.
    """
    for process, names in WORK.items():
        for name in names:
            _play(process, *name.split(":"))
    handle = ClientHandler.__call__

    def handle_as_web(self: ClientHandler, environ: dict[str, Any]) -> Any:
        if connection.connection is None:  # A test without a database.
            return handle(self, environ)
        with acting_as("web"):
            return handle(self, environ)

    ClientHandler.__call__ = handle_as_web  # type: ignore[method-assign]


def _play(process: str, module: str, name: str) -> None:
    holder, _, method = name.rpartition(".")
    home = importlib.import_module(module)
    place = getattr(home, holder) if holder else home
    original: Callable[..., Any] = getattr(place, method)

    @wraps(original)
    def played(*args: Any, **kwargs: Any) -> Any:
        with acting_as(process):
            return original(*args, **kwargs)

    setattr(place, method, played)
    if not holder:
        for other in list(sys.modules.values()):
            if getattr(other, method, None) is original:
                setattr(other, method, played)
