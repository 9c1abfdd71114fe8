"""Comparison of several jobs or versions, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from assay.cli.client import Client
from assay.cli.output import Answer, console, plain, state, table


def comparison_of(client: Client, runs: Sequence[int | str]) -> Answer:
    """Compare jobs or versions by their IDs."""
    comparison = client.get("comparison", run=list(runs))
    return Answer(comparison, lambda: _show(comparison))


def _show(comparison: dict[str, Any]) -> None:
    runs = comparison["runs"]
    letters = [run["run"] for run in runs]
    table(
        ("run", "title", "job", "state"),
        (
            (
                run["run"],
                run["title"],
                run["job"] and run["job"]["id"],
                run["job"] and state(run["job"]["state"]),
            )
            for run in runs
        ),
        empty="",
        cut=True,
    )
    for measured in comparison["measured"]:
        name = measured["dataset_version"]["name"]
        _side_by_side(f"Measured on {name}", letters, _metrics(measured["metrics"]))
    _side_by_side("Measured in training", letters, _metrics(comparison["training"]))
    _side_by_side("Last point of the curves", letters, _curves(runs))
    settings = (
        (setting["name"], {each["run"]: plain(each["value"]) for each in setting["values"]})
        for setting in comparison["settings"]
        if setting["differs"]
    )
    _side_by_side("Settings that differ", letters, settings)


def _metrics(rows: Iterable[dict[str, Any]]) -> Iterable[tuple[str, dict[str, str]]]:
    for row in rows:
        values = {
            each["run"]: f"{each['value']:.4g} {each['standing']}".rstrip()
            for each in row["values"]
        }
        yield row["title"], values


def _curves(runs: Iterable[dict[str, Any]]) -> list[tuple[str, dict[str, str]]]:
    ends: dict[str, dict[str, str]] = {}
    for run in runs:
        for curve in run["curves"]:
            end = f"{curve['values'][-1]:.4g} at {curve['steps'][-1]:,}"
            ends.setdefault(curve["metric"], {})[run["run"]] = end
    return list(ends.items())


def _side_by_side(
    title: str, letters: Sequence[str], rows: Iterable[tuple[str, dict[str, str]]]
) -> None:
    """Print a table with a column for each run, unless it has no rows."""
    cells = [(name, *(values.get(letter, "") for letter in letters)) for name, values in rows]
    if cells:
        console.print()
        table((title, *letters), cells, empty="")
