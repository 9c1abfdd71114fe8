"""Metrics for Prometheus. Labels are bounded: endpoints and outcomes, never keys."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import MutableMapping
from functools import cache
from typing import Any, TypeVar

from django.conf import settings
from prometheus_client import Counter, Gauge, Histogram

from assay.gateway.monitoring.exposition import Reading
from governance.usage.records import UsageEntry
from governance.usage.units import Unit

Metric = TypeVar("Metric", Counter, Histogram)

REQUESTS = Counter(
    "assay_gateway_requests", "Requests by endpoint and outcome.", ("endpoint", "outcome")
)
DURATION = Histogram(
    "assay_gateway_request_duration_seconds",
    "From the first byte of a request to the last of its answer.",
    ("endpoint",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
TOKENS = Counter("assay_gateway_tokens", "Tokens settled.", ("kind",))
UNITS = Counter("assay_gateway_units", "Use settled in units other than tokens.", ("unit",))
INFLIGHT = Gauge(
    "assay_gateway_inflight_requests", "Requests being answered now.", multiprocess_mode="livesum"
)
SNAPSHOT_READ = Gauge(
    "assay_gateway_snapshot_timestamp_seconds",
    "When keys and policy were read, by the process that did so the longest time ago.",
    multiprocess_mode="livemin",
)
UNRECORDED = Counter(
    "assay_gateway_unrecorded_refusals",
    "Refusals beyond the rate at which they are written to the log.",
)
STOPPED = Counter("assay_gateway_stopped", "Requests that a limit stopped, by its kind.", ("kind",))
SHADOWED = Counter(
    "assay_gateway_shadowed", "Requests that a shadow limit would have stopped.", ("kind",)
)
BUDGET_USED = Reading(
    "assay_budget_used_ratio",
    "Used of a budget in its present window; budgets of keys are left out.",
    ("subject", "kind"),
)
BUDGET_ALERT = Reading(
    "assay_budget_alert_percent",
    "The highest alert threshold (50, 80, 100) that the budget has reached; 0 for none.",
    ("subject", "kind"),
)
RELEASE_EXPIRES = Reading(
    "assay_release_expires_seconds",
    "Seconds until the approval ends that a deployment serves under; negative in its grace.",
    ("deployment",),
)
RELEASE_STOPS = Reading(
    "assay_release_stops_seconds",
    "Seconds until the deployment stops serving, with the grace of its release.",
    ("deployment",),
)
FORGED = Counter(
    "assay_gateway_forged_replies",
    "Replies that no worker made that holds the deployment, or that were changed on their way.",
)
HELD = Gauge(
    "assay_gateway_held_settlements",
    "Settlements that Redis has not taken yet.",
    multiprocess_mode="livesum",
)


@cache
def bound(metric: Metric, *labels: str) -> Metric:
    """Return the child of a metric for these labels, looked up once."""
    return metric.labels(*labels)


def count_use(entry: UsageEntry) -> None:
    """Count what an answer used."""
    bound(TOKENS, "prompt").inc(entry.prompt_tokens)
    bound(TOKENS, "completion").inc(entry.completion_tokens)
    if entry.unit != Unit.TOKENS:
        bound(UNITS, entry.unit).inc(entry.units)


_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
_BEARER = re.compile(rb"bearer +(\S+)\Z", re.IGNORECASE)


def may_scrape(scope: MutableMapping[str, Any]) -> bool:
    """True when a request may read the metrics.

    With ASSAY_METRICS_TOKEN set: whoever presents it as a bearer token. Without: only a direct
    connection from this machine; one that a proxy forwarded is not.
    """
    headers = dict(scope["headers"])
    if token := settings.METRICS_TOKEN:
        presented = _BEARER.match(headers.get(b"authorization", b""))
        return presented is not None and hmac.compare_digest(presented[1], token.encode())
    client = scope.get("client")
    if client is None or any(name in headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
