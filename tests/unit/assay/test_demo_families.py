"""`./demo --all` shows every family once, whatever becomes of one of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from assay.demo.families.showcase import Outcome, Showcase, every_showcase
from assay.demo.stage import Stage, StepFailed
from assay.demo.story.every_family import in_order, show_each
from assay.local.materials import MaterialsUnavailable
from assay.local.stack import ROOT, Stack
from registry.catalog import TASKS


def measured(showcase: Showcase) -> Outcome:
    return Outcome(
        task=showcase.task,
        model=showcase.model,
        data=showcase.test.name,
        rows=3,
        metric=showcase.gate.metric,
        baseline_name="chance",
        baseline=0.1,
        value=0.9,
        gate=">= 0.5",
        seconds=2,
        kind="demonstration",
    )


def test_a_family_that_fails_holds_up_no_other_and_the_next_run_shows_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(Console(), Stack(tmp_path / "stack"), tmp_path, {})
    three = every_showcase()[:3]
    faults: dict[str, Exception] = {
        three[0].task: MaterialsUnavailable("There is no apt-get [here]."),
        three[1].task: StepFailed("the gate passes"),
    }
    taken: list[str] = []

    def take(stage: Stage, showcase: Showcase) -> Outcome:
        taken.append(showcase.task)
        if showcase.task in faults:
            raise faults[showcase.task]
        return measured(showcase)

    outcomes, failed = show_each(stage, three, take)
    assert (outcomes, failed) == ([measured(three[2])], [three[0].task, three[1].task])
    assert "There is no apt-get [here]." in capsys.readouterr().out

    faults.clear()
    outcomes, failed = show_each(stage, three, take)
    assert (outcomes, failed) == ([measured(each) for each in three], [])
    assert taken == [each.task for each in (*three, *three[:2])]
    assert "Family 3 of 3" in capsys.readouterr().out


def test_a_dead_service_ends_the_run(tmp_path: Path) -> None:
    def take(stage: Stage, showcase: Showcase) -> Outcome:
        raise RuntimeError("web ended")

    stage = Stage(Console(), Stack(tmp_path / "stack"), tmp_path, {})
    with pytest.raises(RuntimeError, match="web ended"):
        show_each(stage, every_showcase()[:1], take)


def test_each_family_has_a_command_among_the_examples_and_a_row_in_the_table() -> None:
    shown = {each.task for each in every_showcase()}
    commands = (ROOT / "examples" / "README.md").read_text()
    assert set(re.findall(r"^\| ([\w-]+) \| `\./demo --family \1` \|$", commands, re.M)) == shown
    table = (ROOT / "docs" / "reference" / "families.md").read_text()
    assert shown <= set(re.findall(r"^\| ([\w-]+)", table, re.M))
    for task in set(TASKS) - shown:
        assert task in commands


def test_a_chosen_family_comes_after_those_that_it_is_measured_with() -> None:
    chosen = in_order(["text-to-speech", "rerank", "automatic-speech-recognition"])
    assert [each.task for each in chosen] == [
        *("automatic-speech-recognition", "text-to-speech", "rerank"),
    ]
