"""`/healthz`: the process answers. `/readyz`: it may be sent requests. `/metrics`: Prometheus."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable

import redis
from django.db import Error as DatabaseError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from assay.gateway.app import Gateway
from assay.gateway.emergencies import measure_emergencies
from assay.gateway.http import Scope, Send, encode, respond
from assay.gateway.log_health import measure_log
from assay.gateway.metrics import RELEASE_EXPIRES, RELEASE_STOPS, may_scrape
from assay.gateway.snapshot import Snapshot
from governance.errors import Unavailable
from registry.catalog.endpoints import dumps

Probe = Callable[[Gateway, Scope, Send], Awaitable[None]]


async def healthz(gateway: Gateway, scope: Scope, send: Send) -> None:
    """200 as long as the event loop turns."""
    await respond(send, 200, b'{"status":"ok"}', [])


async def readyz(gateway: Gateway, scope: Scope, send: Send) -> None:
    """200 when database and broker answer and usage is recorded; else 503 and what is amiss.

    The database is judged by a connection that is taken as requests take theirs, and by the age of
    the snapshot, which is read from it every few seconds.
    """
    runtime = gateway.start()
    checks = {"database": "ok", "broker": "ok", "usage": "ok"}
    try:
        await runtime.refresher.current()
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
    body = {"status": "ok" if ready else "unavailable", **checks}
    await respond(send, 200 if ready else 503, encode(dumps(body)), [])


async def metrics(gateway: Gateway, scope: Scope, send: Send) -> None:
    """The metrics of this process, for those who may scrape."""
    if not may_scrape(scope):
        await respond(send, 403, b"Metrics need ASSAY_METRICS_TOKEN.\n", [], b"text/plain")
        return
    runtime = gateway.start()
    with contextlib.suppress(Unavailable, redis.RedisError, OSError):
        # Without them the gauges stand as they were at the last scrape.
        snapshot = await runtime.refresher.current()
        _measure_releases(snapshot)
        await runtime.quotas.measure(snapshot.limits)
    with contextlib.suppress(DatabaseError):
        await measure_log()
        await measure_emergencies()
    await respond(send, 200, generate_latest(), [], CONTENT_TYPE_LATEST.encode())


def _measure_releases(snapshot: Snapshot) -> None:
    now = time.time()
    RELEASE_EXPIRES.clear()
    RELEASE_STOPS.clear()
    for name, entry in snapshot.deployments.items():
        RELEASE_EXPIRES.labels(name).set(entry.approved_until - now)
        RELEASE_STOPS.labels(name).set(entry.expires_at - now)


PROBES: dict[str, Probe] = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
