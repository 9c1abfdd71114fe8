"""Phases of one request, one below the other, as the ledger recorded them."""

from __future__ import annotations

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


def waterfall(record: UsageRecord) -> list[WaterfallRow]:
    """Return the phases that took time, in their order. Reading the request, its admission and its
    settlement take well under a millisecond and are part of the phase around them."""
    first = record.first_token_ms
    waited = record.load_ms + record.queue_ms
    phases = [
        ("load", "Load, after being idle", record.load_ms),
        ("queue", "Queue", record.queue_ms),
    ]
    if first is None:
        phases.append(("compute", "Compute and send", record.total_ms - waited))
    else:
        phases.append(("prefill", "Prefill, up to the first token", first - waited))
        phases.append(("stream", "Stream, after the first token", record.total_ms - first))
    phases = [(name, title, max(0, took)) for name, title, took in phases]
    total = sum(took for _, _, took in phases) or 1
    rows, at = [], 0
    for name, title, took in phases:
        if took:
            x, width = 100 * at / total, 100 * took / total
            rows.append(WaterfallRow(name, title, took, f"{x:.2f}", f"{max(width, 0.4):.2f}"))
        at += took
    return rows
