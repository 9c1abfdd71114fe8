"""The shipped rules and dashboard, and a check of their expressions against known series."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import yaml

FOLDER = Path(__file__).resolve().parents[1] / "docker" / "prometheus"
RULE_FILES = sorted(FOLDER.glob("*.rules.yaml"))
DASHBOARD = json.loads((FOLDER / "assay-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = [each for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]


def rules() -> Iterator[Any]:
    for file in RULE_FILES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            assert group["name"] == file.name.removesuffix(".rules.yaml")
            yield from group["rules"]


# Those that other rules and the dashboard use have these labels.
RECORDED = {
    rule["record"]: {"slo", "deployment"}
    for rule in rules()
    if rule.get("record", "").startswith("assay:")
}


def expressions() -> Iterator[str]:
    """Yield every expression of the rules, the panels and the variables of the dashboard."""
    yield from (rule["expr"] for rule in rules() if not rule["expr"].startswith("vector("))
    yield from (target["expr"] for panel in PANELS for target in panel["targets"])
    for variable in VARIABLES:
        values = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        assert values is not None, variable
        metric, label = values.groups()
        yield f"max by ({label}) ({metric})"


def check(expression: str, known: Mapping[str, set[str]]) -> set[str]:
    """Parse an expression, compare its names and labels with known series or recorded ones, and
    return the labels that its result may have."""
    parsed = promql_parser.parse(expression)
    selected = re.findall(r"assay[_:][\w:]+(?:\{[^}]*\})?", expression)
    assert selected, expression
    offered: set[str] = set()
    for text in selected:
        selector = promql_parser.parse(text)
        assert isinstance(selector, promql_parser.VectorSelector)
        labels = RECORDED.get(str(selector.name)) or known.get(str(selector.name))
        assert labels is not None, f"{selector.name} is not exposed"
        named = {matcher.name for matcher in selector.matchers.matchers}
        assert named <= labels, text
        offered |= labels
    grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", str(parsed.prettify()))
               for label in by.split(",")}  # fmt: skip
    assert grouped <= offered, expression
    return grouped or offered
