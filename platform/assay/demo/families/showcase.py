"""The way of one task through the product: intake, data, gate, training, evaluation, release, call.

A module in this package that holds a `SHOWCASE` is one family of `./demo --all`.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from assay.demo import families
from assay.demo.client import Api
from assay.demo.stage import Stage
from assay.demo.story.adapt import evaluate, queue_evaluation
from assay.demo.story.intake import sign_off, version_of
from assay.demo.story.release import approve, attest, ensure_deployed, submit, wait_serving

DEMONSTRATION = " Trained by Assay on this machine, as a demonstration."


@dataclass(frozen=True, slots=True)
class Base:
    """A base model that is delivered: its files, and what is said about them."""

    name: str
    task: str
    description: str
    source: str
    licence: str
    files: Callable[[Stage], Path]


@dataclass(frozen=True, slots=True)
class Data:
    """A dataset: the content of the file that is uploaded, a zip archive or JSON lines."""

    name: str
    licence: str
    content: Callable[[Stage], bytes]
    suffix: str = ".zip"


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

    Without `training` the base itself is measured and released. `call` asks the deployed model as
    its users do and returns one sentence with the answer. A `demonstration` was trained here.
    `generates` answers the risk question whether the model generates content. `after` names tasks
    whose showcases come first, because this one is measured with their models.
    """

    task: str
    model: str
    description: str
    base: Base
    test: Data
    gate: Gate
    call: Callable[[Stage, str], str]
    training: Training | None = None
    demonstration: bool = False
    generates: bool = False
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the table at the end. `baseline` is None when the task has none; `seconds` is the
    time of the run that trained and released it."""

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
    """A showcase whose base, data and gate are in place, and whose training is queued as `job`.

    `seconds` adds up what the showcase took, without the time that its jobs waited for others.
    """

    showcase: Showcase
    base: dict[str, Any]
    test: dict[str, Any]
    train: dict[str, Any] | None
    job: dict[str, Any] | None = None
    seconds: float = 0


def every_showcase() -> list[Showcase]:
    """Return the showcase of each module in this package, by the name of the module."""
    found = []
    for module in sorted(pkgutil.iter_modules(families.__path__), key=lambda each: each.name):
        loaded = importlib.import_module(f"{families.__name__}.{module.name}")
        if hasattr(loaded, "SHOWCASE"):
            found.append(loaded.SHOWCASE)
    return found


def show(stage: Stage, showcases: Iterable[Showcase]) -> list[Outcome]:
    """Take each showcase through the product; return what was measured.

    What is already there is used again, so a run that was interrupted goes on where it stopped.
    """
    return finish(stage, begin(stage, showcases))


def begin(stage: Stage, showcases: Iterable[Showcase]) -> list[Prepared]:
    """Put base, data and gate of each showcase in place, and queue its training; if its base is
    released without training, its evaluation."""
    prepared = [_prepare(stage, each) for each in showcases]
    for each in prepared:
        each.job = _queue_training(stage, each)
        if each.showcase.training is None:
            queue_evaluation(stage, stage["enzo"], each.base, each.showcase.test.name)
    return prepared


def finish(stage: Stage, prepared: list[Prepared]) -> list[Outcome]:
    """Wait for the trainings, then measure, release and call each version."""
    versions = []
    for each in prepared:
        versions.append(_version(stage, each))
        queue_evaluation(stage, stage["enzo"], versions[-1], each.showcase.test.name)
    measured = [
        _measure(stage, each, version) for each, version in zip(prepared, versions, strict=True)
    ]
    for each, version in zip(prepared, versions, strict=True):
        with _counted(each):
            _release(stage, each.showcase, version)
    for each in prepared:
        with _counted(each):
            wait_serving(stage, "enzo", each.showcase.model)
            stage.say(each.showcase.call(stage, each.showcase.model))
    return [_outcome(each, evaluation) for each, evaluation in zip(prepared, measured, strict=True)]


@contextmanager
def _counted(prepared: Prepared) -> Iterator[None]:
    started = time.monotonic()
    yield
    prepared.seconds += time.monotonic() - started


def _job_seconds(job: dict[str, Any]) -> float:
    started, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return (ended - started).total_seconds()


def print_table(stage: Stage, outcomes: Iterable[Outcome]) -> None:
    """Print one row per family."""
    table = Table(title="Families of models, as measured in this run", box=None, padding=(0, 1))
    for heading in ("task", "test data", "metric", "baseline", "result", "gate", "time", "model"):
        table.add_column(heading, overflow="fold")
    for each in outcomes:
        baseline = "–" if each.baseline is None else f"{each.baseline:.3f} ({each.baseline_name})"
        table.add_row(
            each.task,
            f"{each.data} ({each.rows:,} rows)",
            each.metric,
            baseline,
            f"{each.value:.3f}",
            each.gate,
            f"{each.seconds} s",
            each.kind,
        )
    stage.console.print(table)


def to_json(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Return the outcomes for a file."""
    return [asdict(each) for each in outcomes]


def _prepare(stage: Stage, showcase: Showcase) -> Prepared:
    training, gate = showcase.training, showcase.gate
    started = time.monotonic()
    base = _delivered(stage, showcase.base)
    _model(stage["enzo"], showcase.model, showcase.task, showcase.description)
    train = None if training is None else _dataset(stage, training.data, showcase.task)
    test = _dataset(stage, showcase.test, showcase.task)
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
    return Prepared(showcase, base, test, train, seconds=time.monotonic() - started)


def _delivered(stage: Stage, base: Base) -> dict[str, Any]:
    """Return the trusted version of the base; deliver and sign it off first if there is none."""
    enzo = stage["enzo"]
    _model(enzo, base.name, base.task, base.description, shared=True)
    if version_of(stage, base.name) is None:
        folder = base.files(stage)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        uploads = [
            enzo.send("intake", base.name, file.relative_to(folder).as_posix(), file)
            for file in files
        ]
        intake = enzo.post(
            "intakes", model=base.name, source=base.source, licence=base.licence, uploads=uploads
        )
        stage.watch(enzo, {"id": intake["job"]}, f"checking {base.name}")
        sign_off(stage, base.name, intake)
        stage.say(
            f"{base.name} ({base.task}, {len(files)} files) passes intake; Omar signs it off."
        )
    return stage.found(version_of(stage, base.name), f"{base.name} has a base version")


def _model(api: Api, name: str, task: str, description: str, *, shared: bool = False) -> None:
    if api.find("models", name=name) is None:
        api.post(
            "models",
            name=name,
            department="engineering",
            task=task,
            description=description,
            shared=shared,
        )


def _dataset(stage: Stage, data: Data, task: str) -> dict[str, Any]:
    """Return the version of the dataset; upload it first if there is none."""
    enzo = stage["enzo"]
    if enzo.find("datasets", name=data.name) is None:
        enzo.post(
            "datasets",
            name=data.name,
            department="engineering",
            task=task,
            classification="public",
            licence=data.licence,
        )
    path = f"datasets/{data.name}/versions"
    if not list(enzo.all(path)):
        folder = stage.folder / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{data.name}{data.suffix}"
        file.write_bytes(data.content(stage))
        enzo.upload(path, fields={}, files=[("file", file)])
    version: dict[str, Any] = next(iter(enzo.all(path)))
    stage.facts[data.name] = version
    stage.say(f"Dataset {data.name}: {version['rows']:,} rows.")
    return version


def _queue_training(stage: Stage, prepared: Prepared) -> dict[str, Any] | None:
    """Return the queued training; None where nothing is trained, or a version is there."""
    training, train = prepared.showcase.training, prepared.train
    model, enzo = prepared.showcase.model, stage["enzo"]
    if training is None or train is None or list(enzo.all(f"models/{model}/versions")):
        return None
    job: dict[str, Any] = enzo.queue(
        "fine-tunes",
        key=f"demo-{model}-{train['digest'][:16]}",
        model=model,
        base_version=prepared.base["id"],
        method=training.method,
        dataset_version=train["id"],
        hyperparameters=training.settings,
    )
    return job


def _version(stage: Stage, prepared: Prepared) -> dict[str, Any]:
    """Return the version that will be released, once its training has ended."""
    if prepared.showcase.training is None:
        return prepared.base
    enzo, model = stage["enzo"], prepared.showcase.model
    if prepared.job is not None:
        prepared.seconds += _job_seconds(stage.watch(enzo, prepared.job, f"training {model}"))
    newest = next(iter(enzo.all(f"models/{model}/versions")), None)
    newest = stage.found(newest, f"{model} has a trained version")
    version: dict[str, Any] = enzo.get(f"versions/{newest['id']}")
    return version


def _measure(stage: Stage, prepared: Prepared, version: dict[str, Any]) -> dict[str, Any]:
    """Return the evaluation of the version; its gate must pass."""
    data = prepared.showcase.test.name
    with _counted(prepared):
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
        task=showcase.task,
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
    release = submit(
        stage,
        "devi",
        version,
        showcase.model,
        departments=["engineering"],
        visibility="organisation",
        tier="limited",
        generates=showcase.generates,
        purpose=f"{showcase.description}{DEMONSTRATION if showcase.demonstration else ''}",
    )
    if release["state"] != "approved":
        attest(stage, "carla", release)
        for reviewer, speciality in (("carla", "compliance"), ("milo", "model-risk")):
            if release["state"] != "approved":
                release = approve(stage, reviewer, speciality, release)
    stage.expect(release["state"] == "approved", f"{showcase.model} is approved")
    ensure_deployed(stage, "enzo", release)
