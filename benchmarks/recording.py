"""Microseconds that counting one request takes, as the web process counts it.

A streamed answer of 100 tokens is counted with all of its durations. The counts are written to the
files of the process once a second, for all requests since; that is measured separately.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable

from benchmarks.table import Row, show

TOKENS = 100
BAR_US = 20.0


def main() -> int:
    """Print the table; return 1 if recording a request takes longer than the bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 2_000 if parser.parse_args().quick else 20_000
    with tempfile.TemporaryDirectory() as folder:
        # prometheus_client reads it on import.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
        os.environ.setdefault("ASSAY_ENV", "test")
        return _measure(rounds)


def _measure(rounds: int) -> int:
    import django

    django.setup(set_prefix=False)
    from assay.gateway.access.call import Call
    from assay.gateway.monitoring import metrics, tallies
    from assay.gateway.monitoring.times import TokenGaps
    from governance.usage.records import UsageEntry
    from workers.wire import Done

    tallies.Tally._write_in = lambda self, seconds: None  # type: ignore[method-assign]
    endpoint, deployment = "/v1/chat/completions", "writer"
    gaps = TokenGaps()
    for _ in range(TOKENS):
        gaps.arrived(0, 1)
    done = Done("stop", 20, TOKENS, queue_ms=3, prefill_ms=40, decode_ms=900)
    entry = UsageEntry(
        "req_1", 0.0, "ok", endpoint, deployment=deployment,
        prompt_tokens=20, completion_tokens=TOKENS,
    )  # fmt: skip
    call = Call(endpoint, "", first_token_ms=45, gaps=gaps, done=done)
    traced = Call(
        endpoint, "", first_token_ms=45, gaps=gaps, done=done,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )  # fmt: skip

    def record(one: Call) -> Callable[[], None]:
        def both() -> None:
            tallies.count_use(entry)
            tallies.record(one)

        return both

    def written() -> None:
        record(call)()
        tallies.TALLY.write()

    duration = metrics.bound(metrics.DURATION, deployment, endpoint)
    measured = {
        "a request with all of its durations": record(call),
        "the same with exemplars": record(traced),
        "a token of a stream": lambda: gaps.arrived(0, 1),
        "a write, once a second for each deployment": written,
        "for comparison: one duration straight to the file": lambda: duration.observe(0.3),
    }
    rows = [Row.of(name, "µs", _microseconds(action, rounds)) for name, action in measured.items()]
    show(f"Counting a streamed answer of {TOKENS} tokens (bar: {BAR_US:g} µs)", "", rows)
    return int(rows[0].subject > BAR_US)


def _microseconds(action: Callable[[], None], rounds: int) -> list[float]:
    """Return the means of five series."""
    means = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(rounds):
            action()
        means.append((time.perf_counter() - began) / rounds * 1e6)
    return means


if __name__ == "__main__":
    raise SystemExit(main())
