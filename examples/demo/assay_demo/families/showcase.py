"""The steps of one task: intake, data, gate, training, evaluation, release, call.

The modules of this package contain one row for each family of `./demo --all`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from assay_demo.families.steps import (
    Base,
    Data,
    dataset_made,
    delivered,
    model_made,
    newest_version,
    queue_prompt,
    release_and_deploy,
)
from assay_demo.stage import Stage, job_seconds
from assay_demo.story.adapt import evaluate, queue_evaluation
from assay_demo.story.release import wait_serving

DEMONSTRATION = " Trained by Assay on this machine, as a demonstration."


@dataclass(frozen=True, slots=True)
class Training:
    """A recipe of the task, its settings and its data."""

    method: str
    settings: dict[str, Any]
    data: Data


@dataclass(frozen=True, slots=True)
class Gate:
    """A bound on a metric, set before the version is measured; `why` is the reason."""

    metric: str
    comparator: str
    threshold: float
    why: str


@dataclass(frozen=True, slots=True)
class Showcase:
    """One task with a model that is released and called.

    The model is the base after its `training`, or the base with the document `prompt`, or else the
    base itself. `call` calls the deployed model like a user and returns one sentence with the
    answer. A `demonstration` is trained by the demo. `generates` answers the risk question whether
    the model generates content. `after` names earlier showcases whose models are needed to measure
    this one. `feature` is its name if that differs from the task's.
    """

    task: str
    model: str
    description: str
    base: Base
    test: Data
    gate: Gate
    call: Callable[[Stage, str], str]
    training: Training | None = None
    prompt: Mapping[str, Any] | None = None
    demonstration: bool = False
    generates: bool = False
    after: tuple[str, ...] = ()
    feature: str = ""

    @property
    def name(self) -> str:
        """Name of the showcase's row and command."""
        return self.feature or self.task

    @property
    def adapts(self) -> bool:
        """True if the model is not just its base."""
        return self.training is not None or self.prompt is not None

    def begin(self, stage: Stage) -> Prepared:
        """Prepare base, data and gate, and queue the job that makes or measures the version."""
        return begin(stage, [self])[0]

    def finish(self, stage: Stage, begun: Prepared) -> Outcome:
        """Measure, release and call the version."""
        return finish(stage, [begun])[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the final table. `baseline` is None if the task has none; `seconds` is the
    duration of the run that trained and released the model."""

    task: str
    model: str
    data: str
    rows: int
    metric: str
    baseline_name: str
    baseline: float | None
    value: float
    gate: str
    seconds: int
    kind: str


@dataclass(slots=True)
class Prepared:
    """A showcase with base, data and gate, whose version `job` makes.

    `seconds` is the showcase's total time, without waiting for other jobs.
    """

    showcase: Showcase
    base: dict[str, Any]
    test: dict[str, Any]
    train: dict[str, Any] | None
    job: dict[str, Any] | None = None
    seconds: float = 0


def begin(stage: Stage, showcases: Iterable[Showcase]) -> list[Prepared]:
    """Prepare base, data and gate of each showcase, and queue its training or prompt, or the
    evaluation of its base. Results of earlier runs are reused."""
    prepared = [_prepare(stage, item) for item in showcases]
    for item in prepared:
        item.job = _queue_version(stage, item)
        if not item.showcase.adapts:
            queue_evaluation(stage, stage["enzo"], item.base, item.showcase.test.name)
    return prepared


def finish(stage: Stage, prepared: list[Prepared]) -> list[Outcome]:
    """Wait for the trainings, then measure, release and call each version."""
    versions = []
    for item in prepared:
        versions.append(_version(stage, item))
        queue_evaluation(stage, stage["enzo"], versions[-1], item.showcase.test.name)
    measured = [
        _measure(stage, item, version) for item, version in zip(prepared, versions, strict=True)
    ]
    for item, version in zip(prepared, versions, strict=True):
        with _timed(stage, item):
            _release(stage, item.showcase, version)
    for item in prepared:
        with _timed(stage, item):
            wait_serving(stage, "enzo", item.showcase.model)
            stage.say(item.showcase.call(stage, item.showcase.model))
    return [_outcome(item, evaluation) for item, evaluation in zip(prepared, measured, strict=True)]


@contextmanager
def _timed(stage: Stage, prepared: Prepared) -> Iterator[None]:
    """Add the block's time to the showcase's, without the time that its jobs waited for others."""
    started = time.monotonic() - stage.waited
    yield
    prepared.seconds += time.monotonic() - stage.waited - started


def print_table(stage: Stage, outcomes: Iterable[Outcome]) -> None:
    """Print one row per family."""
    table = Table(title="Families of models, as measured in this run", box=None, padding=(0, 1))
    for heading in ("task", "test data", "metric", "baseline", "result", "gate", "time", "model"):
        table.add_column(heading, overflow="fold")
    for outcome in outcomes:
        baseline = (
            "–" if outcome.baseline is None else f"{outcome.baseline:.3f} ({outcome.baseline_name})"
        )
        table.add_row(
            outcome.task,
            f"{outcome.data} ({outcome.rows:,} rows)",
            outcome.metric,
            baseline,
            f"{outcome.value:.3f}",
            outcome.gate,
            f"{outcome.seconds} s",
            outcome.kind,
        )
    stage.console.print(table)


def to_json(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Return the outcomes as JSON values."""
    return [asdict(each) for each in outcomes]


def _prepare(stage: Stage, showcase: Showcase) -> Prepared:
    training, gate = showcase.training, showcase.gate
    started = time.monotonic() - stage.waited
    base = delivered(stage, showcase.base)
    model_made(stage["enzo"], showcase.model, showcase.task, showcase.description)
    train = None if training is None else dataset_made(stage, training.data, showcase.task)
    test = dataset_made(stage, showcase.test, showcase.task)
    if not list(stage["enzo"].all("gates", model=showcase.model)):
        stage["enzo"].post(
            "gates",
            model=showcase.model,
            dataset=showcase.test.name,
            metric=gate.metric,
            comparator=gate.comparator,
            threshold=gate.threshold,
            why=gate.why,
        )
    stage.detail(
        f"{showcase.model}: {gate.metric} {gate.comparator} {gate.threshold:g}. {gate.why}"
    )
    seconds = time.monotonic() - stage.waited - started
    return Prepared(showcase, base, test, train, seconds=seconds)


def _queue_version(stage: Stage, prepared: Prepared) -> dict[str, Any] | None:
    """Return the job that makes the version; None if the version exists or is the base."""
    showcase, train = prepared.showcase, prepared.train
    model, enzo = showcase.model, stage["enzo"]
    if not showcase.adapts or list(enzo.all(f"models/{model}/versions")):
        return None
    if showcase.training is None or train is None:
        return queue_prompt(stage, model, prepared.base, showcase.prompt, showcase.description)
    job: dict[str, Any] = enzo.queue(
        "fine-tunes",
        key=f"demo-{model}-{train['digest'][:16]}",
        model=model,
        base_version=prepared.base["id"],
        method=showcase.training.method,
        dataset_version=train["id"],
        hyperparameters=showcase.training.settings,
    )
    return job


def _version(stage: Stage, prepared: Prepared) -> dict[str, Any]:
    """Wait for the job, and return the version to release."""
    if not prepared.showcase.adapts:
        return prepared.base
    enzo, model = stage["enzo"], prepared.showcase.model
    if prepared.job is not None:
        prepared.seconds += job_seconds(stage.watch(enzo, prepared.job, f"making {model}"))
    return newest_version(stage, model)


def _measure(stage: Stage, prepared: Prepared, version: dict[str, Any]) -> dict[str, Any]:
    """Return the evaluation of the version; its gate must pass."""
    data = prepared.showcase.test.name
    with _timed(stage, prepared):
        evaluation = evaluate(stage, stage["enzo"], version, data)
    (gate,) = evaluation["gates"]
    name = evaluation["baseline_name"]
    baseline = evaluation["baseline"].get(gate["metric"])
    compared = "" if baseline is None else f"; {name}: {baseline:.3f}"
    stage.say(
        f"{version['model']} on {evaluation['sample_size']:,} rows: {gate['metric']} "
        f"{gate['value']:.3f}{compared}."
    )
    stage.expect(gate["passed"], f"the gate {gate['metric']} of {data} passes")
    return evaluation


def _outcome(prepared: Prepared, evaluation: dict[str, Any]) -> Outcome:
    showcase = prepared.showcase
    (gate,) = evaluation["gates"]
    return Outcome(
        task=showcase.name,
        model=showcase.model,
        data=showcase.test.name,
        rows=evaluation["sample_size"],
        metric=gate["metric"],
        baseline_name=evaluation["baseline_name"],
        baseline=evaluation["baseline"].get(gate["metric"]),
        value=gate["value"],
        gate=f"{gate['comparator']} {gate['threshold']:g}",
        seconds=round(prepared.seconds),
        kind="demonstration" if showcase.demonstration else "real weights",
    )


def _release(stage: Stage, showcase: Showcase, version: dict[str, Any]) -> None:
    release_and_deploy(
        stage,
        version,
        showcase.model,
        tier="limited",
        generates=showcase.generates,
        purpose=f"{showcase.description}{DEMONSTRATION if showcase.demonstration else ''}",
    )
