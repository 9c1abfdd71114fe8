"""`./demo --all` and `--family`: a model of each family, through the whole product."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from assay.demo.families.showcase import (
    Outcome,
    Showcase,
    every_showcase,
    print_table,
    show,
    to_json,
)
from assay.demo.stage import FAULTS, Stage
from assay.demo.story.use import give_key
from assay.local.materials import MaterialsUnavailable

Show = Callable[[Stage, Showcase], Outcome]


def run(stage: Stage) -> None:
    """Show each family that chapter 8 has not shown; end with a table of all of them.

    Raises:
        StepFailed: some family failed; the others were shown nevertheless.
    """
    first: list[Outcome] = list(stage.facts.get("outcomes", ()))
    shown = {each.model for each in first}
    _show(stage, [each for each in every_showcase() if each.model not in shown], first)


def run_some(stage: Stage, tasks: Sequence[str]) -> None:
    """Show the families of `tasks` alone, each after those that it needs.

    Raises:
        StepFailed: some family failed; the others were shown nevertheless.
    """
    give_key(stage)
    _show(stage, in_order(tasks), [])


def in_order(tasks: Sequence[str]) -> list[Showcase]:
    """Return the showcases of `tasks`, each after those that it needs."""
    by_task = {each.task: each for each in every_showcase()}
    order = [name for task in tasks for name in (*by_task[task].after, task)]
    return [by_task[task] for task in dict.fromkeys(order)]


def _raise_budgets(stage: Stage) -> None:
    """Let one department train a model of every family in one month."""
    stage.prove("ada")
    for kind, limit in (("money_per_month", 1_000_000_000), ("tokens_per_day", 1_000_000)):
        stage["ada"].post("quotas", department="engineering", kind=kind, limit=limit)
    stage.say("Ada raises engineering's budgets: it trains a model of every family.")


def _show(stage: Stage, waiting: Sequence[Showcase], first: Sequence[Outcome]) -> None:
    _raise_budgets(stage)
    outcomes, failed = show_each(stage, waiting, lambda stage, one: show(stage, [one])[0])
    print_table(stage, sorted([*first, *outcomes], key=lambda each: each.task))
    stage.expect(not failed, f"every family is shown; these failed: {', '.join(failed)}")


def show_each(
    stage: Stage, showcases: Sequence[Showcase], take: Show
) -> tuple[list[Outcome], list[str]]:
    """Show the families that no earlier run has shown; return what was measured, and the tasks
    that failed. One that fails holds up no other."""
    file = stage.folder / "families.json"
    known = {row["model"]: Outcome(**row) for row in _read(file)}
    outcomes: list[Outcome] = []
    failed: list[str] = []
    for number, showcase in enumerate(showcases, start=1):
        heading = f"Family {number} of {len(showcases)}: {showcase.task}"
        if showcase.model in known:
            outcomes.append(known[showcase.model])
            stage.say(f"{heading} was shown by an earlier run.")
            continue
        try:
            with stage.chapter(heading):
                outcome = take(stage, showcase)
        except (*FAULTS, MaterialsUnavailable) as error:
            stage.console.print(f"  [bold red]✗[/] {escape(str(error))}", soft_wrap=True)
            failed.append(showcase.task)
            continue
        outcomes.append(outcome)
        known[showcase.model] = outcome
        file.write_text(json.dumps(to_json(known.values()), indent=2) + "\n")
    return outcomes, failed


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(file.read_text())
    return rows
