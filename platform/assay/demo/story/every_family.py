"""`./demo --all`: one model of every other family, through the whole product."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from assay.demo.families.showcase import Outcome, every_showcase, print_table, show, to_json
from assay.demo.stage import Stage


def run(stage: Stage) -> None:
    """Show each family that chapter 8 has not shown; end with a table of all of them."""
    outcomes: list[Outcome] = list(stage.facts.get("outcomes", ()))
    shown = {each.model for each in outcomes}
    waiting = [each for each in every_showcase() if each.model not in shown]
    file = stage.folder / "families.json"
    known = {row["model"]: Outcome(**row) for row in _read(file)}
    for number, showcase in enumerate(waiting, start=1):
        heading = f"Family {number} of {len(waiting)}: {showcase.task}"
        if showcase.model in known:
            outcomes.append(known[showcase.model])
            stage.say(f"{heading} is done.")
            continue
        with stage.chapter(heading):
            (outcome,) = show(stage, [showcase])
        outcomes.append(outcome)
        known[showcase.model] = outcome
        file.write_text(json.dumps(to_json(known.values()), indent=2) + "\n")
    print_table(stage, sorted(outcomes, key=lambda each: each.task))


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(file.read_text())
    return rows
