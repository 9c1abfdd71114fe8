"""Metrics for Prometheus. Labels are bounded: deployments, endpoints and outcomes, never keys."""

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

Metric = TypeVar("Metric", Counter, Histogram)

# Buckets of OpenTelemetry's conventions for generative AI.
_FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
)  # fmt: skip
_INTER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_DURATION_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SERIES = ("deployment", "endpoint")

# `assay.gateway.monitoring.tallies` writes these: they have a series for each deployment.
REQUESTS = Counter(
    "assay_gateway_requests",
    "Requests by deployment, endpoint, outcome, and HTTP status of the answer or error (499: the "
    "client hung up).",
    (*_SERIES, "outcome", "code"),
)
DURATION = Histogram(
    "assay_gateway_request_duration_seconds",
    "From the first byte of a request to the last of its answer.",
    _SERIES,
    buckets=_DURATION_S,
)
QUEUE = Histogram(
    "assay_gateway_request_queue_time_seconds",
    "From sending an answered request to its workers to the start of computing.",
    _SERIES,
    buckets=_DURATION_S,
)
PREFILL = Histogram(
    "assay_gateway_request_prefill_time_seconds",
    "From the start of computing an answer to its first token in the engine.",
    _SERIES,
    buckets=_DURATION_S,
)
DECODE = Histogram(
    "assay_gateway_request_decode_time_seconds",
    "From the first token of an answer to its last in the engine.",
    _SERIES,
    buckets=_DURATION_S,
)
FIRST_TOKEN = Histogram(
    "assay_gateway_time_to_first_token_seconds",
    "From the first byte of a request to the first token of its streamed answer.",
    _SERIES,
    buckets=_FIRST_TOKEN_S,
)
INTER_TOKEN = Histogram(
    "assay_gateway_inter_token_latency_seconds",
    "Between two tokens of a streamed answer, as they reach the gateway.",
    _SERIES,
    buckets=_INTER_TOKEN_S,
)
TOKENS = Counter("assay_gateway_tokens", "Tokens settled.", ("deployment", "kind"))
UNITS = Counter(
    "assay_gateway_units", "Use settled in units other than tokens.", ("deployment", "unit")
)
INFLIGHT = Gauge(
    "assay_gateway_inflight_requests", "Requests being answered now.", multiprocess_mode="livesum"
)
SNAPSHOT_READ = Gauge(
    "assay_gateway_snapshot_timestamp_seconds",
    "Time of the last reading of keys and policy; the oldest of all processes.",
    multiprocess_mode="livemin",
)
UNRECORDED = Counter(
    "assay_gateway_unrecorded_refusals",
    "Refusals that exceeded the rate at which they are recorded.",
)
CONTENT_DROPPED = Counter(
    "assay_gateway_request_content_dropped",
    "Requests whose content was not logged because this process had no room for it.",
)
STOPPED = Counter("assay_gateway_stopped", "Requests that a limit stopped, by kind.", ("kind",))
SHADOWED = Counter(
    "assay_gateway_shadowed", "Requests that a shadow limit would have stopped.", ("kind",)
)
FALLBACKS = Counter(
    "assay_gateway_fallbacks",
    "Attempts that failed before the first byte, after which another target of the deployment "
    "took the request, by HTTP status of the failure.",
    ("deployment", "code"),
)
TARGETS_PAUSED = Counter(
    "assay_gateway_targets_paused",
    "Pauses of targets, which failed several requests in a row or requested a pause.",
    ("deployment",),
)
SHADOW_COPIES = Counter(
    "assay_gateway_shadow_copies",
    "Copies of requests for shadow targets, by result; skipped: too many were running.",
    ("deployment", "result"),
)
BUDGET_USED = Reading(
    "assay_budget_used_ratio",
    "Used share of a budget in its current window; budgets of keys are not included.",
    ("subject", "kind"),
)
BUDGET_ALERT = Reading(
    "assay_budget_alert_percent",
    "The highest alert threshold (50, 80, 100) that the budget has reached; 0 for none.",
    ("subject", "kind"),
)
RELEASE_EXPIRES = Reading(
    "assay_release_expires_seconds",
    "Seconds until the deployment's approval ends; negative during its grace.",
    ("deployment",),
)
RELEASE_STOPS = Reading(
    "assay_release_stops_seconds",
    "Seconds until the deployment stops serving, including the grace of its release.",
    ("deployment",),
)
FORGED = Counter(
    "assay_gateway_forged_replies",
    "Replies that did not come from a worker of the deployment, or were changed in transit.",
)
PENDING_SETTLEMENTS = Gauge(
    "assay_gateway_held_settlements",
    "Settlements that Redis has not accepted yet.",
    multiprocess_mode="livesum",
)


@cache
def bound(metric: Metric, *labels: str) -> Metric:
    """Return the child of a metric for these labels; cached."""
    return metric.labels(*labels)


def bounds_of(metric: Histogram) -> tuple[float, ...]:
    """Return the upper bounds of a histogram's buckets; the last one is infinite."""
    return tuple(metric._upper_bounds)


_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
_BEARER = re.compile(rb"bearer +(\S+)\Z", re.IGNORECASE)


def may_scrape(scope: MutableMapping[str, Any]) -> bool:
    """Return true if a request may read the metrics.

    With ASSAY_METRICS_TOKEN set, it needs that bearer token. Otherwise it must come directly from
    this machine, not through a proxy.
    """
    headers = dict(scope["headers"])
    if token := settings.METRICS_TOKEN:
        match = _BEARER.match(headers.get(b"authorization", b""))
        return match is not None and hmac.compare_digest(match[1], token.encode())
    client = scope.get("client")
    if client is None or any(name in headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
