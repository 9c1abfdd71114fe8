"""Incidents and break-glass for Prometheus; read from the database at each scrape."""

from __future__ import annotations

import asyncio

from django.db.models import Count
from django.utils import timezone
from prometheus_client import Gauge

from assay.gateway.snapshot import close_connection
from registry.incidents.models import Incident, IncidentSuspension, Severity
from registry.incidents.states import STANDING
from registry.releases.breakglass.models import BreakGlass, BreakGlassState

INCIDENTS = Gauge(
    "assay_incidents_open", "Incidents that are not resolved yet, by severity.", ("severity",)
)
SUSPENDING = Gauge("assay_incidents_suspending", "Incidents that keep releases from serving.")
BREAK_GLASS = Gauge("assay_break_glass_active", "Releases that serve by break-glass now.")
REVIEWS_OVERDUE = Gauge(
    "assay_break_glass_reviews_overdue", "Break-glasses whose review afterwards is overdue."
)


async def measure_emergencies() -> None:
    """Bring the gauges up to date.

    Raises:
        django.db.Error: the database does not answer; the gauges stand as they were.
    """
    await asyncio.to_thread(_measure)


def _measure() -> None:
    now = timezone.now()
    try:
        rows = Incident.objects.filter(state__in=STANDING).order_by().values_list("severity")
        counts = dict(rows.annotate(count=Count("pk")))
        suspending = IncidentSuspension.objects.filter(lifted_at__isnull=True).count()
        glasses = BreakGlass.objects.order_by()
        active = glasses.filter(state=BreakGlassState.ACTIVE, ends_at__gt=now).count()
        overdue = glasses.filter(state=BreakGlassState.ENDED, due_at__lte=now).count()
    finally:
        close_connection()
    for severity in Severity.values:
        INCIDENTS.labels(severity).set(counts.get(severity, 0))
    SUSPENDING.set(suspending)
    BREAK_GLASS.set(active)
    REVIEWS_OVERDUE.set(overdue)
