"""The phases of a request's page, in their places."""

from __future__ import annotations

from typing import Any

from assay.portal.waterfall import waterfall
from governance.usage.models import UsageRecord


def record(**columns: Any) -> UsageRecord:
    return UsageRecord(**{"outcome": "ok", "endpoint": "/v1/chat/completions", **columns})


def phases(*attempts: UsageRecord, hosted: bool = False, **columns: Any) -> list[tuple[str, int]]:
    rows = waterfall(record(**columns), attempts, hosted=hosted)
    return [(row.name, row.milliseconds) for row in rows]


def test_a_hosted_stream_after_a_failed_target_shows_every_phase() -> None:
    columns = {
        "admit_ms": 10, "load_ms": 5, "retry_ms": 85, "queue_ms": 20, "connect_ms": 30,
        "first_token_ms": 300, "total_ms": 1000, "settle_ms": 4,
    }  # fmt: skip
    attempt = record(outcome="failed", release=3, admit_ms=10, load_ms=5, total_ms=95)
    assert phases(attempt, hosted=True, **columns) == [
        ("admission", 10),
        ("load", 5),
        ("attempt", 80),
        ("queue", 20),
        ("connect", 30),
        ("provider", 150),
        ("stream", 700),
        ("settle", 4),
    ]
    rows = {row.name: row for row in waterfall(record(**columns), [attempt], hosted=True)}
    assert float(rows["attempt"].x) < float(rows["queue"].x) < float(rows["provider"].x)
    assert all(float(row.x) + float(row.width) <= 100.05 for row in rows.values())


def test_a_target_that_took_no_request_has_no_record_but_time() -> None:
    assert phases(admit_ms=2, retry_ms=50, total_ms=100) == [
        ("admission", 2),
        ("attempt", 50),
        ("compute", 48),
    ]


def test_records_of_older_gateways_show_what_they_have() -> None:
    assert phases(queue_ms=40, first_token_ms=100, total_ms=900) == [
        ("queue", 40),
        ("prefill", 60),
        ("stream", 800),
    ]
    assert phases(total_ms=0) == []


def test_a_clock_that_is_ahead_moves_no_phase_past_the_end() -> None:
    assert phases(admit_ms=5, queue_ms=10_000, first_token_ms=60, total_ms=100) == [
        ("admission", 5),
        ("queue", 95),
    ]
