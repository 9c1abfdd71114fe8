"""Processor time of the command line: `assay COMMAND --help` for each command, and a list.

A figure is the user and system time of a command's process, which other load on the machine hardly
changes. The list comes from a server in this process, whose time is not included. There is no
reference; the goals are 150 ms for help and 300 ms for a list.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

from assay.cli.main import ALL, every_command
from benchmarks.table import Row, show

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 11
JOB: dict[str, Any] = {
    "id": "0b0f8f6e-6d5c-4e6a-9d0b-3f1c8c7f9b55",
    "title": "Fine-tune desk-sorter on desk-train v1",
    "state": "succeeded",
    "progress": {"step": 1200, "total": 1200, "phase": "succeeded"},
    "department": "engineering",
    "created_at": "2026-05-01T14:30:00Z",
}


class Jobs(BaseHTTPRequestHandler):
    """Handler that answers every request with a page of 25 jobs."""

    def do_GET(self) -> None:  # the name that the base class calls
        page = json.dumps({"next": None, "previous": None, "results": [JOB] * 25}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Print nothing."""


def cpu_ms(arguments: Sequence[str], environment: dict[str, str]) -> float:
    """Return the processor time of one command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "assay.cli", *arguments],
        env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"assay {' '.join(arguments)} exited with {process.returncode}.")
    return (usage.ru_utime + usage.ru_stime) * 1000


def commands() -> list[tuple[str, ...]]:
    """Return the words of every command that has a `--help` of its own."""
    paths: list[tuple[str, ...]] = []
    for name, command in every_command().commands.items():
        if not ALL[name].raw:
            parts: dict[str, Any] = getattr(command, "commands", {})
            paths += [(name, part) for part in parts] or [(name,)]
    return paths


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds = 3 if quick else ROUNDS
    server = ThreadingHTTPServer(("127.0.0.1", 0), Jobs)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")]),
        "ASSAY_SERVER": f"http://127.0.0.1:{server.server_port}",
        "ASSAY_TOKEN": "assay_benchmark",
    }

    def row(title: str, *arguments: str) -> Row:
        return Row.of(title, "ms", [cpu_ms(arguments, environment) for _ in range(rounds)])

    times = {
        words: [cpu_ms((*words, "--help"), environment) for _ in range(1 if quick else 3)]
        for words in commands()
    }
    medians = {words: median(samples) for words, samples in times.items()}
    slowest = max(medians, key=medians.__getitem__)
    rows = [
        row("assay --help", "--help"),
        row("assay jobs list --help", "jobs", "list", "--help"),
        Row.of(f"assay … --help, median of {len(times)} commands", "ms", medians.values()),
        Row.of(f"assay {' '.join(slowest)} --help, the slowest", "ms", times[slowest]),
        row("assay jobs list, 25 rows", "jobs", "list"),
        row("assay jobs list --json", "jobs", "list", "--json"),
    ]
    show("Processor time of a command", "–", rows)


if __name__ == "__main__":
    main()
