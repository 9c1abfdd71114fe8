"""Write the table of metrics, `docs/reference/metrics.md`, from the code that exposes them.

ASSAY_ENV=test .venv/bin/python tools/metrics.py
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
import django

django.setup()
# Models exist only once Django is set up.
import yaml  # noqa: E402
from prometheus_client import Counter, Gauge, Histogram  # noqa: E402

from assay.gateway import monitoring  # noqa: E402
from assay.gateway.monitoring.exposition import Reading  # noqa: E402

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "metrics.md"
HEAD = """# Metrics

Written by `tools/metrics.py` from the code. `GET /metrics` shows these
([how to scrape it](../how-to/monitor.md)). A histogram `NAME` has the series `NAME_bucket`,
`NAME_sum` and `NAME_count`.

Labels are bounded. `deployment` is a live deployment, empty for requests that named none, and
`(other)` beyond 2,000 names in the life of a web process; its series end with it. `endpoint` is a
route, never a path with an ID. No metric names a key, a person or a prompt, and no value of a label
comes from a caller.

"""
# Modules with a table of their own; metrics of all others come last.
PARTS = {
    "Requests": "metrics",
    "Engines and GPUs": "engine_metrics",
    "Jobs, queues, workers, store and controller": "work_metrics",
    "Audit log, incidents and the store's state": "probes",
}
OTHERS = "Others"
NAMES = PAGE.parents[2] / "docker" / "prometheus" / "assay-names.rules.yaml"
AFTER = """
## Names of vLLM and OpenTelemetry

`docker/prometheus/assay-names.rules.yaml` records copies under these names, with the deployment as
`model_name` or `gen_ai_request_model`, and with underscores in place of OpenTelemetry's points.
Load it only for dashboards that were made for them
([ADR 55](../adr/0055-metrics-have-names-of-their-own.md)).

| Assay | vLLM | OpenTelemetry |
|---|---|---|
"""


class Row(NamedTuple):
    """One metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    about: str


def rows(module: object) -> Iterator[Row]:
    """Yield the metrics that a module defines, in its order."""
    for each in vars(module).values():
        if isinstance(each, Reading):
            name = each.name + ("_total" if each.is_total else "")
            kind = "counter" if each.is_total else "gauge"
            yield Row(name, kind, each.label_names, each._documentation)
        elif isinstance(each, Counter | Gauge | Histogram):
            name = each._name + ("_total" if isinstance(each, Counter) else "")
            yield Row(name, each._type, tuple(each._labelnames), each._documentation)


def page() -> str:
    """Return the page: one table for each part."""
    names = [info.name for info in pkgutil.iter_modules(monitoring.__path__)]
    parts = {title: [name] for title, name in PARTS.items()}
    parts[OTHERS] = [name for name in names if name not in PARTS.values()]
    listed: set[str] = set()
    tables = []
    for title, modules in parts.items():
        lines = []
        for name in modules:
            for row in rows(importlib.import_module(f"{monitoring.__name__}.{name}")):
                if row.name not in listed:  # A module may import a metric of another.
                    listed.add(row.name)
                    labels = ", ".join(f"`{label}`" for label in row.labels)
                    lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.about} |\n")
        if lines:
            head = f"## {title}\n\n| metric | type | labels | |\n|---|---|---|---|\n"
            tables.append(head + "".join(lines))
    return HEAD + "\n".join(tables) + AFTER + other_names()


def other_names() -> str:
    """Return the rows of the table of other names, from the rules that record them."""
    found: dict[str, dict[str, list[str]]] = {}
    for rule in yaml.safe_load(NAMES.read_text())["groups"][0]["rules"]:
        name = re.sub(r"_(bucket|sum|count)$", "", rule["record"])
        (metric,) = re.findall(r"assay_\w+", rule["expr"])
        ours = re.sub(r"_(bucket|sum|count)$", "", metric)
        system = "vLLM"
        if name.startswith("gen_ai_server_"):
            stem = name.removeprefix("gen_ai_server_").removesuffix("_seconds")
            system, name = "OpenTelemetry", f"gen_ai.server.{stem.replace('request_', 'request.')}"
        names = found.setdefault(ours, {"vLLM": [], "OpenTelemetry": []})[system]
        if f"`{name}`" not in names:
            names.append(f"`{name}`")
    return "".join(
        f"| `{ours}` | {', '.join(names['vLLM'])} | {', '.join(names['OpenTelemetry'])} |\n"
        for ours, names in found.items()
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
