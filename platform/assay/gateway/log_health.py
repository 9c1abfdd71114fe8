"""Health of the audit log for Prometheus; read from the database at each scrape."""

from __future__ import annotations

import asyncio

from prometheus_client import Gauge

from assay.gateway.snapshot import close_connection
from governance.audit import alarms
from governance.audit.models import AuditAlarm
from governance.audit.selectors import publish_lag_s, sealing_lag_s, unsealed_events
from governance.audit.streaming.selectors import stream_states

SEALING_LAG = Gauge(
    "assay_audit_sealing_lag_seconds", "Seconds that the oldest unsealed audit event has waited."
)
PUBLISH_LAG = Gauge(
    "assay_audit_publish_lag_seconds",
    "Seconds that the oldest checkpoint which is not in the second place has waited.",
)
UNSEALED = Gauge("assay_audit_unsealed_events", "Audit events that wait for their seal.")
STREAM_EVENTS = Gauge(
    "assay_audit_stream_lag_events",
    "Sealed audit events that a SIEM has not accepted.",
    ("stream",),
)
STREAM_SECONDS = Gauge(
    "assay_audit_stream_lag_seconds", "Age of the oldest of them in seconds.", ("stream",)
)
ALARM = Gauge("assay_audit_alarm", "1 while an alarm of the audit log is raised.", ("alarm",))


async def measure_log() -> None:
    """Bring the gauges up to date.

    Raises:
        django.db.Error: the database does not answer; the gauges stand as they were.
    """
    await asyncio.to_thread(_measure)


def _measure() -> None:
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
