"""Task packages for tests: written into a folder as pip would install them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from registry.catalog import GROUP, task_catalog
from registry.catalog.checks.faults import Fault
from registry.catalog.discovery import Entry, RejectedEntry

# A whole declaration, which tests change.
TASK = """
from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins.declare import (
    BATCH, GENERATION, Answer, Body, Endpoint, Evaluation, Family, Inputs, Metric, Modality,
    NoOptions, Options, Plan, Playground, Recipe, RowKind, Strict, Task, TextInputs, Texts, Unit,
    as_list, parse,
)


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=1000)
    label: str = Field(min_length=1, max_length=40)


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=3, ge=1, le=100)


class Request(Strict):
    inputs: Texts


@dataclass(frozen=True)
class Renderer:
    def whole(self, answer: Answer) -> list[Any]:
        return answer.results


def read(body: Body, request_id: str, name: str) -> Plan:
    texts = as_list(parse(Request, body.data).inputs)
    return Plan(
        model=name, inputs=TextInputs(input=texts), renderer=Renderer(), tokens=9, prompt_tokens=9,
        units=9,
    )


def ask(row: dict[str, Any]) -> tuple[TextInputs, NoOptions]:
    return TextInputs(input=[row["text"]]), NoOptions()


def text_of(row: dict[str, Any]) -> str:
    return row["text"]


TASK = Task(
    interface=1,
    name="NAME",
    title="A task of a test",
    description="Does something.",
    modality="text",
    inputs=(Modality.TEXT,),
    outputs=(Modality.LABEL,),
    architectures=("Counter",),
    engine=BATCH,
    runner="MODULE.work:Runner",
    unit=Unit.CHARACTERS,
    input_schema=TextInputs,
    result_type=str,
    endpoints=(Endpoint("/v1/tasks/NAME", read, named=True, request=Request),),
    sample={"inputs": "Hello."},
    playground=Playground(body={"inputs": "$text"}, text="Hello."),
    row=Row,
    row_input=text_of,
    examples=({"text": "Hello.", "label": "en"},),
    recipes=(
        Recipe(
            method="full", title="Full", makes="full", train="MODULE.work:train",
            hyperparameters=Settings,
        ),
    ),
    evaluation=Evaluation(
        request=ask,
        score="MODULE.work:score",
        metrics=(Metric("accuracy", "Accuracy", proportion=True), Metric("macro_f1", "Macro-F1")),
        primary_metric="accuracy",
    ),
)
"""


def declared(module: str, name: str, change: str = "") -> str:
    """Return the source of a declaration; `change` are arguments that replace some of its own."""
    source = TASK.replace("MODULE", module).replace("NAME", name)
    return f"{source}\nTASK = dataclasses.replace(TASK, {change})\n" if change else source


def install(
    site: Path,
    name: str,
    files: dict[str, str],
    *,
    tasks: dict[str, str],
    version: str = "1.0.0",
) -> Path:
    """Write a distribution into the folder `site`: its modules, and the metadata of pip.

    `files` are sources by path; `tasks` are dotted names by the name of the task.
    """
    for path, source in files.items():
        file = site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source))
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = "".join(f"{task} = {value}\n" for task, value in tasks.items())
    (info / "entry_points.txt").write_text(f"[assay.tasks]\n{lines}")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    return site


def install_task(
    site: Path, name: str, source: str = "", *, change: str = "", before: str = ""
) -> Path:
    """Install a package of one task, in one module of its own. `before` is run at its import."""
    module = name.replace("-", "_")
    text = before + "\n" + (source or declared(module, name, change))
    if "from __future__" in text and before:
        text = text.replace("from __future__ import annotations\n", "", 1)
    return install(
        site, f"{name}-package", {f"{module}/__init__.py": text}, tasks={name: f"{module}:TASK"}
    )


def left_out(name: str, what: str) -> RejectedEntry:
    """Return an entry point that is left out."""
    return RejectedEntry(
        Entry(EntryPoint(name, "mine:TASK", GROUP)), (Fault("import", what, "Fix it."),)
    )


@pytest.fixture
def refused() -> Iterator[list[RejectedEntry]]:
    """Tasks that this process leaves out; a test may add to them."""
    before = list(task_catalog().refused)
    yield task_catalog().refused
    task_catalog().refused[:] = before
