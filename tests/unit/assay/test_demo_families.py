"""`./demo --all` shows every family and feature once, whatever becomes of one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from assay.local.stack import Stack
from assay_demo.data.materials import MaterialsUnavailable
from assay_demo.families.showcase import Outcome
from assay_demo.stage import Stage, StepFailed
from assay_demo.story.every_family import everything, in_order, show_each
from registry.catalog import TASKS

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Family:
    """A family that fails with `fault`, or is measured; `shown` counts its beginnings."""

    name: str
    fault: Exception | None = None
    shown: int = 0
    after: tuple[str, ...] = ()
    at: str = "begin"

    @property
    def model(self) -> str:
        return f"model-of-{self.name}"

    @property
    def outcome(self) -> Outcome:
        return Outcome(
            task=self.name,
            model=self.model,
            data="rows",
            rows=3,
            metric="accuracy",
            baseline_name="chance",
            baseline=0.1,
            value=0.9,
            gate=">= 0.5",
            seconds=2,
            kind="demonstration",
        )

    def begin(self, stage: Stage) -> str:
        self.shown += 1
        stage.facts.setdefault("order", []).append(f"begin {self.name}")
        if self.fault is not None and self.at == "begin":
            raise self.fault
        return f"begun {self.name}"

    def finish(self, stage: Stage, begun: str) -> Outcome:
        assert begun == f"begun {self.name}"
        stage.facts["order"].append(f"finish {self.name}")
        if self.fault is not None:
            raise self.fault
        return self.outcome


def test_a_family_that_fails_holds_up_no_other_and_the_next_run_shows_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(Console(), Stack(tmp_path / "stack"), tmp_path, {})
    first = Family("first", MaterialsUnavailable("There is no apt-get [here]."))
    second = Family("second", StepFailed("the gate passes"), at="finish")
    third = Family("third")
    three = [first, second, third]

    outcomes, failed = show_each(stage, three)
    assert (outcomes, failed) == ([third.outcome], ["first", "second"])
    assert "There is no apt-get [here]." in capsys.readouterr().out

    assert stage.facts["order"] == [
        *("begin first", "begin second", "begin third", "finish second", "finish third"),
    ]

    first.fault = second.fault = None
    outcomes, failed = show_each(stage, three)
    assert (outcomes, failed) == ([each.outcome for each in three], [])
    assert [each.shown for each in three] == [2, 2, 1]
    assert "Family 3 of 3" in capsys.readouterr().out


def test_a_dead_service_ends_the_run(tmp_path: Path) -> None:
    stage = Stage(Console(), Stack(tmp_path / "stack"), tmp_path, {})
    with pytest.raises(RuntimeError, match="web ended"):
        show_each(stage, [Family("first", RuntimeError("web ended"))])


def test_each_family_has_a_command_among_the_examples_and_a_row_in_the_table() -> None:
    shown = {each.name for each in everything()}
    commands = (ROOT / "examples" / "README.md").read_text()
    assert set(re.findall(r"^\| ([\w-]+) \| `\./demo --family \1` \|$", commands, re.M)) == shown
    table = (ROOT / "docs" / "reference" / "families.md").read_text()
    assert shown <= set(re.findall(r"^\| ([\w-]+)", table, re.M))
    for task in set(TASKS) - shown:
        assert task in commands


def test_a_chosen_family_comes_after_those_that_it_is_measured_with() -> None:
    chosen = in_order(["text-to-speech", "rerank", "automatic-speech-recognition"])
    assert [each.name for each in chosen] == [
        *("automatic-speech-recognition", "text-to-speech", "rerank"),
    ]
