"""Alert rules and the dashboard are valid, and ask for metrics and labels that exist."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any

import promql_parser
import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.utils import floatToGoString

from assay.gateway import monitoring
from assay.gateway.monitoring import metrics
from assay.gateway.monitoring.exposition import Reading
from governance.audit.alarms import ALARMS
from tests.promql import DASHBOARD, PANELS, check, rules
from workers.controller import DUTIES, LEADER_DUTIES


def exposed() -> dict[str, set[str]]:
    """The labels of each series that `/metrics` exposes."""
    found: dict[str, set[str]] = {}
    for info in pkgutil.iter_modules(monitoring.__path__, f"{monitoring.__name__}."):
        for each in vars(importlib.import_module(info.name)).values():
            if isinstance(each, Counter | Gauge | Histogram):
                labels = set(each._labelnames)
                name = each.describe()[0].name
                if isinstance(each, Counter):
                    found[f"{name}_total"] = labels
                elif isinstance(each, Histogram):
                    found[f"{name}_bucket"] = labels | {"le"}
                    found[f"{name}_sum"] = found[f"{name}_count"] = labels
                else:
                    found[name] = labels
            elif isinstance(each, Reading):
                found[each.name + ("_total" if each.is_total else "")] = set(each.label_names)
    return found


EXPOSED = exposed()


@pytest.mark.parametrize(
    "rule", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"]
)
def test_a_rule_asks_for_what_is_exposed_and_says_what_to_do(rule: dict[str, Any]) -> None:
    offered = check(rule["expr"], EXPOSED)
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}
    if "for" in rule:
        promql_parser.parse_duration(rule["for"])
    used = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
    assert used <= offered
    for alarms in re.findall(r'alarm[!=]~?"([^"]*)"', rule["expr"]):
        assert set(alarms.split("|")) <= {alarm.name for alarm in ALARMS}


def test_a_recording_rule_asks_for_what_is_exposed() -> None:
    for rule in rules():
        if "record" not in rule:
            continue
        assert rule.keys() <= {"record", "expr", "labels"}
        assert re.fullmatch(r"(assay|vllm):[a-z0-9_:]+|gen_ai_[a-z_]+", rule["record"])
        if not rule["expr"].startswith("vector("):
            check(rule["expr"], EXPOSED)


def test_every_objective_has_a_budget_and_two_series() -> None:
    parts: dict[str, list[str]] = {}
    for rule in rules():
        if "slo" in rule.get("labels", {}):
            parts.setdefault(rule["labels"]["slo"], []).append(rule["record"])
    assert set(parts) == {"availability", "first_token", "queue", "sealing", "controller", "backup"}
    for each in parts.values():
        assert each == ["assay:slo_budget:ratio", "assay:slo_all:rate5m", "assay:slo_bad:rate5m"]


def test_thresholds_of_objectives_are_bounds_of_buckets() -> None:
    bounds = {f"{each._name}_bucket": {floatToGoString(bound) for bound in each._upper_bounds}
              for each in vars(metrics).values() if isinstance(each, Histogram)}  # fmt: skip
    compared = [
        found for rule in rules() for found in re.findall(r'(\w+)\{le="([^"]+)"\}', rule["expr"])
    ]
    assert len(compared) == 2
    for name, bound in compared:
        assert bound in bounds[name]


def test_metrics_are_named_by_the_conventions_of_prometheus() -> None:
    """And only what is counted ends in `_total` and is asked for its increase."""
    asked = [rule["expr"] for rule in rules()]
    asked += [target["expr"] for panel in PANELS for target in panel["targets"]]
    for name in EXPOSED:
        assert re.fullmatch(r"assay_[a-z][a-z0-9_]*[a-z0-9]", name), name
        name = re.sub(r"(_seconds)_count$", r"\1", name)
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kib|mib|count|info)$", name), name
    rated = {
        name for expression in asked for name in re.findall(r"(?:rate|increase)\((\w+)", expression)
    }
    assert rated
    assert {
        name for name in rated if not name.endswith(("_total", "_bucket", "_sum", "_count"))
    } == set()
    deltas = {name for name in EXPOSED if name.endswith("_total")}
    assert not {name for text in asked for name in re.findall(r"(?:max|min)\((\w+)", text)} & deltas


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in rules() if "alert" in rule]
    assert len(set(names)) == len(names) > 20


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_of_the_dashboard_asks_for_what_is_exposed(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    for target in panel["targets"]:
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert named <= check(target["expr"], EXPOSED)


def test_panels_of_the_dashboard_do_not_overlap_and_have_ids_of_their_own() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        own = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not own & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_loop_that_a_rule_names_exists() -> None:
    loops = {name for name, _every, _duty in (*DUTIES, *LEADER_DUTIES)}
    for rule in rules():
        for named in re.findall(r'loop=~?"([^"]*)"', rule["expr"]):
            assert set(named.split("|")) <= loops
