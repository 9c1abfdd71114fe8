"""`./demo --all` and `--family`: a model of each family, then each feature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.markup import escape

from assay_demo.data.materials import MaterialsUnavailable
from assay_demo.families import images, sounds, tables, texts
from assay_demo.families.showcase import Outcome, Showcase, print_table, to_json
from assay_demo.features import knowledge_base, prompt, tools
from assay_demo.stage import FAULTS, Stage
from assay_demo.story.use import give_key

_FAULTS = (*FAULTS, MaterialsUnavailable)


class DemoItem(Protocol):
    """A family or a feature: the name of its row, and the model or base that it shows.

    `after` names items to show first.
    """

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def after(self) -> tuple[str, ...]: ...

    def begin(self, stage: Stage) -> Any:
        """Prepare the item and queue its first jobs, continuing an earlier run."""
        ...

    def finish(self, stage: Stage, begun: Any) -> Outcome:
        """Run the remaining steps; `begun` is the result of `begin`."""
        ...


def every_showcase() -> list[Showcase]:
    """Return the showcase of each task, ordered by task name."""
    rows = (*images.SHOWCASES, *sounds.SHOWCASES, *tables.SHOWCASES, *texts.SHOWCASES)
    return sorted(rows, key=lambda each: each.task)


def everything() -> list[DemoItem]:
    """Return every family, then the features."""
    return [*every_showcase(), prompt.SHOWCASE, tools.SHOWCASE, knowledge_base.SHOWCASE]


def run(stage: Stage) -> None:
    """Show each family that chapter 8 has not shown, then a table of all families.

    Raises:
        StepFailed: some family failed; the others were shown nevertheless.
    """
    first: list[Outcome] = list(stage.facts.get("outcomes", ()))
    models = {each.model for each in first}
    _show(stage, [each for each in everything() if each.model not in models], first)


def run_some(stage: Stage, names: Sequence[str]) -> None:
    """Show only the families and features of these names, each after those that it needs.

    Raises:
        StepFailed: some family failed; the others were shown nevertheless.
    """
    give_key(stage)
    _show(stage, in_order(names), [])


def in_order(names: Sequence[str]) -> list[DemoItem]:
    """Return the families and features of these names, each after those that it needs."""
    by_name = {each.name: each for each in everything()}
    order = [name for requested in names for name in (*by_name[requested].after, requested)]
    return [by_name[name] for name in dict.fromkeys(order)]


def _raise_budget(stage: Stage) -> None:
    """Raise a budget so that one department can train a model of every family in one month."""
    stage.prove("ada")
    stage["ada"].post(
        "quotas", department="engineering", kind="money_per_month", limit=1_000_000_000
    )
    stage.say("Ada raises engineering's budget: it trains a model of every family.")


def _show(stage: Stage, waiting: Sequence[DemoItem], first: Sequence[Outcome]) -> None:
    _raise_budget(stage)
    outcomes, failed = show_each(stage, waiting)
    print_table(stage, sorted([*first, *outcomes], key=lambda each: each.task))
    stage.expect(not failed, f"every family is shown; these failed: {', '.join(failed)}")


def show_each(stage: Stage, waiting: Sequence[DemoItem]) -> tuple[list[Outcome], list[str]]:
    """Show the items that no earlier run has shown; return their outcomes, and the names of those
    that failed. A failure does not stop the others.

    Each item begins before the previous one is finished, so that its training runs meanwhile.
    """
    file = stage.folder / "families.json"
    earlier = {row["model"]: Outcome(**row) for row in _read(file)}
    ahead = _Ahead(stage, [each for each in waiting if each.model not in earlier])
    outcomes: list[Outcome] = []
    failed: list[str] = []
    for number, each in enumerate(waiting, start=1):
        heading = f"Family {number} of {len(waiting)}: {each.name}"
        if each.model in earlier:
            outcomes.append(earlier[each.model])
            stage.say(f"{heading} is already done by an earlier run.")
            continue
        try:
            with stage.chapter(heading):
                outcome = each.finish(stage, ahead.take())
        except _FAULTS as error:
            stage.console.print(f"  [bold red]✗[/] {escape(str(error))}", soft_wrap=True)
            failed.append(each.name)
            continue
        outcomes.append(outcome)
        earlier[each.model] = outcome
        file.write_text(json.dumps(to_json(earlier.values()), indent=2) + "\n")
    return outcomes, failed


class _Ahead:
    """Begins items in order, one ahead of the taken one."""

    def __init__(self, stage: Stage, waiting: Sequence[DemoItem]) -> None:
        self._begun = (_begin(stage, each) for each in waiting)
        self._next: Any = None

    def take(self) -> Any:
        """Begin the item after the next; return the result of the next item's `begin`, or raise its
        error."""
        mine = self._next or next(self._begun)
        self._next = next(self._begun, None)
        value, fault = mine
        if fault is not None:
            raise fault
        return value


def _begin(stage: Stage, shown: DemoItem) -> tuple[Any, Exception | None]:
    stage.detail(f"Preparing {shown.name}.")
    try:
        return shown.begin(stage), None
    except _FAULTS as error:
        return None, error


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(file.read_text())
    return rows
