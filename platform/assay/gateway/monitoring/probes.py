"""`/healthz`: the process runs. `/readyz`: it can answer requests. `/metrics`: Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor

import redis
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db.models import Count
from django.utils import timezone

from assay.gateway.access.reading import close_connection
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.app import Gateway
from assay.gateway.http.asgi import Scope, Send, encode, header, respond
from assay.gateway.monitoring.controllers import measure_controllers
from assay.gateway.monitoring.exposition import Reading, exposition
from assay.gateway.monitoring.metrics import RELEASE_EXPIRES, RELEASE_STOPS, may_scrape
from assay.gateway.monitoring.work_metrics import measure_broker, measure_work
from governance.audit import alarms
from governance.audit.models import AuditAlarm
from governance.audit.selectors import publish_lag_s, sealing_lag_s, unsealed_events
from governance.audit.streaming.selectors import stream_states
from governance.errors import Unavailable
from registry.catalog.endpoints import dumps
from registry.incidents.models import Incident, IncidentSuspension, Severity
from registry.incidents.states import STANDING
from registry.releases.emergency_access.models import EmergencyAccess, EmergencyAccessState
from registry.storage import store

Probe = Callable[[Gateway, Scope, Send], Awaitable[None]]
# Read from the database at each scrape.
INCIDENTS = Reading(
    "assay_incidents_open", "Incidents that are not resolved yet, by severity.", ("severity",)
)
SUSPENDING = Reading("assay_incidents_suspending", "Suspensions of releases by incidents.")
EMERGENCY_ACCESS = Reading(
    "assay_emergency_access_active", "Releases that serve by emergency access now."
)
REVIEWS_OVERDUE = Reading(
    "assay_emergency_access_reviews_overdue",
    "Emergency accesses whose follow-up review is overdue.",
)
SEALING_LAG = Reading(
    "assay_audit_sealing_lag_seconds", "Seconds that the oldest unsealed audit event has waited."
)
PUBLISH_LAG = Reading(
    "assay_audit_publish_lag_seconds",
    "Seconds that the oldest checkpoint not yet in the second place has waited.",
)
UNSEALED = Reading("assay_audit_unsealed_events", "Audit events that are not sealed yet.")
STREAM_EVENTS = Reading(
    "assay_audit_stream_lag_events",
    "Sealed audit events that a SIEM has not accepted yet.",
    ("stream",),
)
STREAM_SECONDS = Reading(
    "assay_audit_stream_lag_seconds",
    "Age of the oldest sealed audit event that a SIEM has not accepted yet, in seconds.",
    ("stream",),
)
STORE_UP = Reading("assay_store_up", "1 while the artifact store answers.")
ALARM = Reading("assay_audit_alarm", "1 while an alarm of the audit log is raised.", ("alarm",))


async def healthz(gateway: Gateway, scope: Scope, send: Send) -> None:
    """Answer 200 as long as the event loop runs."""
    await respond(send, 200, b'{"status":"ok"}', [])


async def readyz(gateway: Gateway, scope: Scope, send: Send) -> None:
    """Answer 200 if database and broker answer and usage is recorded; otherwise 503 with the fault.
    The states of the artifact store and of the controllers are reported, but do not matter for the
    status: requests are answered for as long as the leases last.

    The database is checked with a connection opened like a request's, and by the age of the
    snapshot, which is read every few seconds.
    """
    runtime = gateway.start()
    checks = {"database": "ok", "broker": "ok", "usage": "ok"}
    try:
        await runtime.parts.refresher.current()
        await gateway.database.ask()
    except Unavailable:
        checks["database"] = "does not answer"
    try:
        await runtime.client.ping()
    except (redis.RedisError, OSError):
        checks["broker"] = "does not answer"
    if runtime.ledger.blocked:
        checks["usage"] = "cannot be recorded"
    ready = all(value == "ok" for value in checks.values())
    # Without the store nothing can be loaded, but loaded deployments keep serving.
    checks["store"] = await STORE.state()
    checks["controllers"] = "not known"
    if checks["database"] == "ok":
        with contextlib.suppress(DatabaseError):
            checks["controllers"] = (await measure_controllers()).fault or "ok"
    body = {"status": "ok" if ready else "unavailable", **checks}
    await respond(send, 200 if ready else 503, encode(dumps(body)), [])


class StoreProbe:
    """State of the artifact store, checked at most every 30 s, with a short wait for the answer.

    It does not affect readiness: loaded deployments serve without the store.
    """

    EVERY_S = 30.0
    WAIT_S = 1.0

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="assay-store-probe")
        self._asked_at = float("-inf")
        self._asking: Future[None] | None = None
        self._state = "not known yet"

    async def state(self) -> str:
        """Return `ok` or a short description of the fault."""
        idle = self._asking is None or self._asking.done()
        if idle and time.monotonic() - self._asked_at > self.EVERY_S:
            self._asking = self._thread.submit(self._ask)
        if self._asking is not None:
            await asyncio.wait({asyncio.wrap_future(self._asking)}, timeout=self.WAIT_S)
        return self._state

    def _ask(self) -> None:
        try:
            store.backend().check()
            self._state = "ok"
        except Unavailable as error:
            self._state = error.code.removeprefix("store_").replace("_", " ")
        except ImproperlyConfigured:
            self._state = "misconfigured"
        finally:
            STORE_UP.set(self._state == "ok")
            self._asked_at = time.monotonic()


STORE = StoreProbe()


async def metrics(gateway: Gateway, scope: Scope, send: Send) -> None:
    """Answer with the metrics of all web processes of this machine, if the caller may scrape."""
    if not may_scrape(scope):
        await respond(send, 403, b"Metrics need ASSAY_METRICS_TOKEN.\n", [], b"text/plain")
        return
    runtime = gateway.start()
    with contextlib.suppress(Unavailable, redis.RedisError, OSError):
        # If these do not answer, the gauges keep the values of the last scrape.
        snapshot = await runtime.parts.refresher.current()
        _measure_releases(snapshot)
        await runtime.parts.quotas.measure(snapshot.limits)
        await measure_broker(runtime.client, list(snapshot.every_entry()))
    await STORE.state()
    last = runtime.parts.refresher.snapshot
    live = None if last is None else last.deployments.keys()
    with contextlib.suppress(DatabaseError):
        await measure_log()
        await measure_emergencies()
        await measure_work(live or ())
        await measure_controllers()
    accept = (header(scope, b"accept") or b"").decode("latin-1")
    text, content_type = await asyncio.to_thread(exposition, accept, live)
    await respond(send, 200, text, [], content_type.encode())


def _measure_releases(snapshot: Snapshot) -> None:
    now = time.time()
    RELEASE_EXPIRES.clear()
    RELEASE_STOPS.clear()
    for name, entry in snapshot.deployments.items():
        RELEASE_EXPIRES.labels(name).set(entry.approved_until - now)
        RELEASE_STOPS.labels(name).set(entry.expires_at - now)


async def measure_emergencies() -> None:
    """Update the gauges of incidents and emergency access.

    Raises:
        django.db.Error: the database does not answer; the gauges keep their values.
    """
    await asyncio.to_thread(_measure_emergencies)


def _measure_emergencies() -> None:
    now = timezone.now()
    try:
        rows = Incident.objects.filter(state__in=STANDING).order_by().values_list("severity")
        counts = dict(rows.annotate(count=Count("pk")))
        suspending = IncidentSuspension.objects.filter(lifted_at__isnull=True).count()
        emergencies = EmergencyAccess.objects.order_by()
        active = emergencies.filter(state=EmergencyAccessState.ACTIVE, ends_at__gt=now).count()
        overdue = emergencies.filter(state=EmergencyAccessState.ENDED, due_at__lte=now).count()
    finally:
        close_connection()
    for severity in Severity.values:
        INCIDENTS.labels(severity).set(counts.get(severity, 0))
    SUSPENDING.set(suspending)
    EMERGENCY_ACCESS.set(active)
    REVIEWS_OVERDUE.set(overdue)


async def measure_log() -> None:
    """Update the gauges of the audit log.

    Raises:
        django.db.Error: the database does not answer; the gauges keep their values.
    """
    await asyncio.to_thread(_measure_log)


def _measure_log() -> None:
    try:
        sealing, publishing, unsealed = sealing_lag_s(), publish_lag_s(), unsealed_events()
        streams = stream_states()
        raised = set(AuditAlarm.objects.values_list("name", flat=True))
    finally:
        close_connection()
    SEALING_LAG.set(sealing)
    PUBLISH_LAG.set(publishing)
    UNSEALED.set(unsealed)
    for stream in streams:
        STREAM_EVENTS.labels(stream.name).set(stream.lag_events)
        STREAM_SECONDS.labels(stream.name).set(stream.lag_s)
    for alarm in alarms.ALARMS:
        ALARM.labels(alarm.name).set(alarm.name in raised)


PROBES: dict[str, Probe] = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
