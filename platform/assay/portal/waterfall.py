"""Phases of one request, one below the other, as the ledger recorded them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from governance.usage.models import UsageRecord


@dataclass(frozen=True, slots=True)
class WaterfallRow:
    """One phase: `x` and `width` are its place on a line from 0 to 100, for SVG."""

    name: str
    title: str
    milliseconds: int
    x: str
    width: str


@dataclass(frozen=True, slots=True)
class _Phase:
    """A phase from `begin` to `end`, in milliseconds since the request arrived."""

    name: str
    title: str
    begin: int
    end: int


def waterfall(
    record: UsageRecord, attempts: Sequence[UsageRecord] = (), *, hosted: bool = False
) -> list[WaterfallRow]:
    """Return the phases that took time, in their order; `attempts` are the records of targets that
    failed before. Records of older gateways have no admission, connection and settlement."""
    phases = [*_before(record, attempts), *_answer(record, hosted=hosted)]
    end = max((phase.end for phase in phases), default=0) or 1
    return [
        WaterfallRow(
            phase.name,
            phase.title,
            phase.end - phase.begin,
            f"{min(99.6, 100 * phase.begin / end):.2f}",
            f"{max(0.4, 100 * (phase.end - phase.begin) / end):.2f}",
        )
        for phase in phases
        if phase.end > phase.begin
    ]


def _before(record: UsageRecord, attempts: Sequence[UsageRecord]) -> list[_Phase]:
    """Return the phases until the target that answered got the request."""
    admitted = record.admit_ms or 0
    sent = admitted + record.load_ms
    phases = [
        _Phase("admission", "Admission", 0, admitted),
        _Phase("load", "Load, after being idle", admitted, sent),
    ]
    for number, attempt in enumerate(attempts, start=1):
        begin = sent + (attempt.retry_ms or 0)
        title = f"Attempt {number}, release {attempt.release}, {attempt.outcome}"
        phases.append(_Phase("attempt", title, begin, attempt.total_ms))
    if record.retry_ms and not attempts:
        # A target that took no request has no record.
        end = sent + record.retry_ms
        phases.append(_Phase("attempt", "Targets that took no request", sent, end))
    return phases


def _answer(record: UsageRecord, *, hosted: bool) -> list[_Phase]:
    """Return the phases of the target that answered, and the settlement."""
    begin = (record.admit_ms or 0) + record.load_ms + (record.retry_ms or 0)
    total, first = record.total_ms, record.first_token_ms
    parts = [("queue", "Queue", begin + record.queue_ms)]
    connected = parts[-1][2] + (record.connect_ms or 0)
    parts.append(("connect", "Connect to the provider", connected))
    if first is None:
        parts.append(("compute", "Provider" if hosted else "Compute and send", total))
    else:
        name, title = ("provider", "Provider") if hosted else ("prefill", "Prefill")
        parts.append((name, f"{title}, up to the first token", first))
        parts.append(("stream", "Stream, after the first token", total))
    phases = []
    for name, title, until in parts:
        end = max(begin, min(until, total))
        phases.append(_Phase(name, title, begin, end))
        begin = end
    return [*phases, _Phase("settle", "Settlement", total, total + (record.settle_ms or 0))]
