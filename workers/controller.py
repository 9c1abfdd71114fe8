"""Loops of the control plane: seal, publish and export the audit log, collect usage, maintain
budgets, sweep and finish jobs, assign deployments to workers, expire releases, silent replicas and
sessions.

Several controllers may run. Each of them confirms deployments and ends what may not go on, because
these loops promise a time that is shorter than a takeover. All other loops run in the leader alone
(`workers.leadership`). ADR 53 lists each loop with its reason.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import redis
from django.conf import settings
from django.db import close_old_connections, connections
from django.db.backends.signals import connection_created

from governance.audit import alarms, attesting, sealer
from governance.audit.exports import run as exports_run
from governance.audit.outside import publishing
from governance.audit.outside.bodies import bodies_offload_due
from governance.audit.signing import audit_signer
from governance.audit.streaming import streamer
from governance.changes.services import changes_purge
from governance.people import role_requests, sessions
from governance.quotas import maintenance
from governance.request_log.services import request_logs_expire_due
from governance.reviews.reminders import sending as reminders
from governance.reviews.waivers.services import waivers_expire_due
from governance.usage.collector import BATCH, collect_once
from governance.usage.sealing import require_usage_key
from governance.usage.times import usage_times_add
from registry.batches.services import batches_purge_due
from registry.files.services import files_expire_due
from registry.incidents.raising import incident_notices_send_due
from registry.media.store import media_expire_due
from registry.releases.drafts.services import release_drafts_expire_due
from registry.releases.emergency_access.services import emergency_accesses_end_due
from registry.releases.validity import releases_expire_due, releases_warn_due
from registry.releases.voiding import releases_void_due
from registry.responses.services import responses_expire_due
from registry.uploads.services import uploads_expire_due
from workers import database_watch
from workers.deployments.judging import Judge
from workers.deployments.leases import leases_renew
from workers.deployments.services import deployments_stop_unservable, replicas_expire
from workers.deployments.software import software_measure
from workers.deployments.stated_models import stated_models_record
from workers.deployments.worker_keys import worker_keys_expire
from workers.dropped_messages import dropped_messages_record
from workers.jobs.chains import chains_advance
from workers.jobs.pausing import paused_jobs_expire
from workers.jobs.sweeping import job_sweep, work_folders_expire, work_waits
from workers.leadership.election import LOOP, Election
from workers.leadership.lease import session_begin, under
from workers.listening import listener
from workers.measurements.loops import LoopTimes
from workers.measurements.measuring import (
    jobs_measure,
    loops_measure,
    replicas_measure,
    store_measure,
)
from workers.measurements.queues import queues_measure
from workers.nodes.broker_access import BrokerAccess
from workers.nodes.broker_denials import broker_denials_record
from workers.nodes.services import node_records_expire
from workers.offers.services import worker_tasks_expire
from workers.placement.assigning import Placer
from workers.routing.canary import EVERY_S, canaries_judge
from workers.schedules.running import schedules_start_due
from workers.storage.archiving import months_retain
from workers.storage.collection import store_collect_due
from workers.wire import CONTROLLER_CHANNEL, DEPLOYMENTS_CHANNEL

logger = logging.getLogger(__name__)
SWEEP_S = 1.0
WATCH_S = 2.0
MEASURE_S = 15.0
# Run by every controller.
DUTIES: tuple[tuple[str, float, Callable[[], object]], ...] = (
    # Each has a judge of its own, since a loop that hangs must not hold up the other.
    ("leases", WATCH_S, partial(leases_renew, Judge())),
    ("deployments", WATCH_S, partial(deployments_stop_unservable, Judge(checks=False))),
    ("replicas", WATCH_S, replicas_expire),
    ("releases", WATCH_S, releases_expire_due),
    ("waivers", WATCH_S, waivers_expire_due),
    ("emergency-accesses", WATCH_S, emergency_accesses_end_due),
    # Checks everything under review; nearly always, the cause itself has already voided a review.
    ("voiding", 5 * WATCH_S, releases_void_due),
)
# Run by the leader.
LEADER_DUTIES: tuple[tuple[str, float, Callable[[], object]], ...] = (
    ("warnings", 60.0, releases_warn_due),
    ("responses", 60.0, responses_expire_due),
    ("request-logs", 60.0, request_logs_expire_due),
    ("batches", 60.0, batches_purge_due),
    ("files", 60.0, files_expire_due),
    ("nodes", 60.0, node_records_expire),
    ("broker-denials", MEASURE_S, broker_denials_record),
    ("dropped-messages", MEASURE_S, dropped_messages_record),
    ("workers", 60.0, worker_keys_expire),
    ("worker-tasks", 60.0, worker_tasks_expire),
    ("changes", 60.0, changes_purge),
    ("uploads", 60.0, uploads_expire_due),
    ("media", 60.0, media_expire_due),
    ("schedules", 5.0, schedules_start_due),
    ("canaries", EVERY_S, canaries_judge),
    ("stated-models", WATCH_S, stated_models_record),
    ("incident-notices", 20.0, incident_notices_send_due),
    ("release-drafts", 3600.0, release_drafts_expire_due),
    ("work-folders", 3600.0, work_folders_expire),
    ("paused-jobs", 3600.0, paused_jobs_expire),
    ("store", 24 * 3600.0, store_collect_due),
    ("usage-times", 600.0, usage_times_add),
    ("retention", 3600.0, months_retain),
    ("audit-offload", 600.0, bodies_offload_due),
    ("store-figures", 6 * 3600.0, store_measure),
    ("job-figures", MEASURE_S, jobs_measure),
    ("replica-figures", MEASURE_S, replicas_measure),
    ("queue-figures", MEASURE_S, queues_measure),
    ("software-figures", MEASURE_S, software_measure),
)
# The longest pause after a duty that failed, far below `ASSAY_SERVING_LEASE_S`.
DUTY_LONGEST_S = 8.0
BROKER_TIMEOUT_S = 10.0
# Usage that arrives during this pause is written together, since most of the cost of a round does
# not depend on the amount.
USAGE_PAUSE_S = 0.25
# Before a longer pause a loop closes its connection: PostgreSQL ends idle ones of loops that every
# controller runs (`workers.leadership.lease`), and a role has a limited number.
IDLE_S = 5.0
RESTART_FIRST_S = 0.5
RESTART_LONGEST_S = 30.0

Loop = Callable[[threading.Event], None]


class Controller:
    """Runs the loops as threads. Call `start`, then `close`."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._deployments_changed = threading.Event()
        self._nodes_changed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._times = LoopTimes()
        self._election = Election()

    @property
    def name(self) -> str:
        """Name by which other processes know this controller."""
        return self._election.name

    def own_loops(self) -> dict[str, Loop]:
        """Return the loops that every controller runs, by name."""
        return {
            LOOP: partial(self._election.run, self._times),
            "database-sessions": partial(database_watch.run, self._times),
            "loop-figures": self._measure_loops,
            "attestations": attesting.run,
            **self._duties(DUTIES),
        }

    def leader_loops(self) -> dict[str, Loop]:
        """Return the loops that only the leader runs, by name."""
        return {
            "sealer": sealer.run,
            "publisher": publishing.run,
            "alarms": alarms.run,
            "usage": self._collect_usage,
            "budgets": maintenance.run,
            "jobs": self._sweep_jobs,
            "placement": self._place,
            "broker-users": self._keep_broker_users,
            "sessions": sessions.run,
            "role-requests": role_requests.run,
            "exports": exports_run.run,
            "reminders": reminders.run,
            **{f"stream-{one.name}": partial(streamer.run, one) for one in settings.SIEM_STREAMS},
            **self._duties(LEADER_DUTIES),
        }

    def start(self) -> None:
        """Start every loop.

        Raises:
            ImproperlyConfigured: this process lacks the usage key or the audit signing key.
        """
        require_usage_key()
        connection_created.connect(session_begin)
        # In development this creates the key, or publishes the public part of an existing one.
        audit_signer()
        own, led = self.own_loops(), self.leader_loops()
        for name, loop in own.items():
            self._begin(name, partial(guarded, name, loop, self._stop))
        for name, loop in led.items():
            self._begin(name, partial(self._election.led, partial(guarded, name, loop)))
        handlers: dict[str, Callable[[str], None]] = {
            # A node's session begins, or placements on nodes change.
            CONTROLLER_CHANNEL: lambda _message: _set(self._woken, self._nodes_changed),
            DEPLOYMENTS_CHANNEL: lambda _message: _set(
                self._deployments_changed, self._nodes_changed
            ),
        }
        self._threads.append(listener(handlers, self._stop))
        logger.info("The controller runs: %s; and as leader: %s", ", ".join(own), ", ".join(led))

    def close(self, timeout_s: float = 10.0) -> None:
        """End every loop after its current step, then give up the leader's lease. If a loop does
        not end in time, the lease ends by itself instead."""
        self._stop.set()
        self._election.close()
        self._woken.set()
        _set(self._deployments_changed, self._nodes_changed)
        for thread in self._threads:
            thread.join(timeout_s)
        if not any(thread.is_alive() for thread in self._threads):
            self._election.resign()
        logger.info("The controller has ended")

    def _begin(self, name: str, target: Callable[[], None]) -> None:
        def run() -> None:
            under(None)
            target()

        thread = threading.Thread(target=run, name=f"assay-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _duties(
        self, duties: tuple[tuple[str, float, Callable[[], object]], ...]
    ) -> dict[str, Loop]:
        """Return a loop for each duty, so that one which fails or hangs does not hold up others."""
        return {
            name: partial(_every, self._times, name, every, duty) for name, every, duty in duties
        }

    def _sweep_jobs(self, stop: threading.Event) -> None:
        while not stop.is_set():
            close_old_connections()
            with self._times.round("jobs", SWEEP_S):
                if work_waits():
                    job_sweep()
                    chains_advance()
            self._woken.wait(SWEEP_S)
            self._woken.clear()

    def _measure_loops(self, stop: threading.Event) -> None:
        _every(self._times, "loop-figures", MEASURE_S, lambda: loops_measure(self._times), stop)

    def _collect_usage(self, stop: threading.Event) -> None:
        client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=BROKER_TIMEOUT_S)
        consumer = f"{socket.gethostname()}:{os.getpid()}"
        try:
            while not stop.is_set():
                close_old_connections()
                with self._times.round("usage", SWEEP_S):
                    taken = collect_once(client, consumer=consumer)
                if 0 < taken < BATCH:
                    stop.wait(USAGE_PAUSE_S)
        finally:
            client.close()

    def _keep_broker_users(self, stop: threading.Event) -> None:
        client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=BROKER_TIMEOUT_S)
        access = BrokerAccess(client)
        try:
            while not stop.is_set():
                close_old_connections()
                self._nodes_changed.clear()
                with self._times.round("broker-users", WATCH_S):
                    access.run()
                self._nodes_changed.wait(WATCH_S)
        finally:
            client.close()

    def _place(self, stop: threading.Event) -> None:
        placer = Placer()
        try:
            while not stop.is_set():
                close_old_connections()
                # Clear before the round, so that the next one sees changes during it.
                self._deployments_changed.clear()
                with self._times.round("placement", WATCH_S):
                    placer.run()
                self._deployments_changed.wait(WATCH_S)
        finally:
            placer.close()


def _set(*events: threading.Event) -> None:
    for event in events:
        event.set()


def guarded(name: str, loop: Loop, stop: threading.Event) -> None:
    """Run `loop` until `stop`; if it fails, log that and start it again, with growing pauses while
    it keeps failing.
    """
    wait = RESTART_FIRST_S
    while not stop.is_set():
        close_old_connections()
        started = time.monotonic()
        try:
            loop(stop)
        except Exception:
            if time.monotonic() - started > RESTART_LONGEST_S:
                wait = RESTART_FIRST_S
            logger.exception("The loop %s broke; it starts again in %.1f s", name, wait)
        finally:
            connections.close_all()
        if stop.wait(wait):
            return
        wait = min(wait * 2, RESTART_LONGEST_S)


def _every(
    times: LoopTimes,
    name: str,
    seconds: float,
    duty: Callable[[], object],
    stop: threading.Event,
) -> None:
    """Run `duty` regularly until `stop`. Retry failures soon, since leases cannot wait for long."""
    wait = seconds
    while not stop.is_set():
        close_old_connections()
        try:
            with times.round(name, seconds):
                duty()
            wait = seconds
        except Exception:
            wait = min(2 * wait, DUTY_LONGEST_S)
            logger.exception("%s failed; it is tried again in %.0f s", name, wait)
        if wait >= IDLE_S:
            connections.close_all()
        stop.wait(wait)
