"""Measure a version on dataset rows through the engine and the runner that serve it.

One evaluator for every task: each row becomes an inference request, and the task's score function
turns rows and results into metrics. Evaluation therefore runs the same code as serving.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from registry.catalog.answers import ROWS_MAX, tolerance_of
from registry.catalog.declaration import BATCH
from registry.catalog.generation import GenerationInputs, SamplingOptions
from registry.catalog.hosted import HOSTED_FILE, HostedDescription
from registry.catalog.inputs import Inputs, Options
from registry.catalog.prompt import PromptDocument
from registry.catalog.requests import RequestInvalid, invalid
from workers.engines.architectures import UnsupportedModel
from workers.engines.names import load_name
from workers.engines.protocol import Engine, EngineRequest, RequestRefused
from workers.trainers.lengths import warn_of_cut
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationPlan,
    EvaluationRequest,
    EvaluationResult,
    Judge,
    Progress,
)
from workers.trainers.reference import reference_rows
from workers.trainers.rows import read_rows
from workers.wire import Delta, Done, Event, Failed

# Requests in the engine at once: enough to fill its batches.
IN_FLIGHT = 64
# If the model cannot read more than this share of the rows, the result is meaningless.
MAX_SHARE_LEFT_OUT = 0.05
ADAPTER = "version"
_POLL_S = 0.5
_RESULTS = ConfigDict(strict=True, arbitrary_types_allowed=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answer to one row: generated text, and the results of a batch runner, or the likelihood of a
    given answer, which providers of hosted models do not state. `is_cut` is set if the row was too
    long for the model and was cut."""

    text: str
    results: list[Any]
    is_cut: bool = False


# Returns the results of one request in a smaller form; must not raise.
Compact = Callable[[list[Any]], list[Any]]
# Returns one answer for each request; raises BadMaterial if one is refused.
AskModel = Callable[[Sequence[tuple[Inputs, Options]]], list[Outcome]]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Input of a score function.

    `outcomes` has one entry for each of `rows`, as has `base_outcomes`: answers of the version's
    base, which reports call `base_name`; None unless the version is a prompt, or an adapter that
    generates text.
    `train_rows` are the version's training rows, if the task requests them. Media columns hold
    `pathlib.Path`s. `judge` queries the judge model that the task declares; None without one.
    """

    rows: list[dict[str, Any]]
    outcomes: list[Outcome]
    base_outcomes: list[Outcome] | None
    train_rows: list[dict[str, Any]] | None
    progress: Progress
    judge: AskModel | None = None
    base_name: str = "untuned base"


Score = Callable[[ScoreRequest], EvaluationResult]


def evaluate(request: EvaluationRequest, progress: Progress) -> EvaluationResult:
    """Answer every row with the version, and with its base if it is a prompt, or an adapter that
    generates text; then score.

    Raises:
        BadMaterial: files or rows cannot be used, or too many rows cannot be answered.
        Canceled: `progress` requested the end.
    """
    plan = request.plan
    rows = read_rows(request.data_file, lambda row: True, "the task's schema")
    rows = [_with_media(row, plan.media_columns, request.media) for row in rows[: request.max_rows]]
    requests = [_request(plan, number, row) for number, row in enumerate(rows)]
    if plan.hosted:
        requests = _for_provider(request.version, requests, progress)
    adapter = ADAPTER if request.base is not None else None
    compared = request.prompt is not None or (request.base is not None and plan.engine != BATCH)
    engine = _load(request)
    try:
        # The answers of a provider vary without any upgrade here.
        repeated = 0 if plan.hosted else min(ROWS_MAX, len(rows))
        run = _Run(engine, progress, total=len(rows) * (2 if compared else 1) + repeated)
        prompted = _prompted(request.prompt, requests)
        answers = run.answer(prompted, adapter)
        usable = [index for index, outcome in enumerate(answers) if outcome is not None]
        left_out = len(rows) - len(usable)
        if left_out > MAX_SHARE_LEFT_OUT * len(rows):
            raise BadMaterial(
                f"{left_out} of {len(rows)} rows cannot be answered by the model; the first: "
                f"{run.refusal} Use rows that it can read."
            )
        if left_out:
            progress.warn(f"{left_out} of {len(rows)} rows are left out; the first: {run.refusal}")
        below = adapter if request.prompt is not None else None
        base = run.answer(requests, below) if compared else None
        reference: list[dict[str, Any]] = []
        if repeated:
            reference = reference_rows(
                [(i, each) for i in usable if not isinstance(each := prompted[i], RequestInvalid)],
                [_answered(answers[index]) for index in usable],
                lambda chosen: list(run.answer(chosen, adapter)),
                tolerance_of(plan.outputs),
            )
        run.finish()
    finally:
        engine.close()
    for outcomes in (answers, base or []):
        _check_results(plan, outcomes)
    score: Score = load_name(plan.score)
    result = score(
        ScoreRequest(
            rows=[rows[index] for index in usable],
            outcomes=[_answered(answers[index]) for index in usable],
            base_outcomes=None if base is None else [_answered(base[index]) for index in usable],
            train_rows=None
            if request.train_file is None
            else [
                _with_media(row, plan.media_columns, request.media)
                for row in _read_json_lines(request.train_file)
            ],
            progress=progress,
            judge=None if request.judge is None else _judge(request.judge, progress),
            base_name="untuned base" if request.prompt is None else "without the prompt",
        )
    )
    if request.judge is not None:
        result.details["judge"] = {"version": request.judge.name, "digest": request.judge.digest}
    if left_out:
        result.details["rows_left_out"] = left_out
    cut = sum(_answered(answers[index]).is_cut for index in usable)
    result.details["rows_cut"] = cut
    warn_of_cut(progress, cut, len(usable), "the model read only a part of each")
    return replace(result, reference=reference)


def _request(plan: EvaluationPlan, number: int, row: dict[str, Any]) -> tuple[Inputs, Options]:
    try:
        inputs, options = plan.request(row)
        return inputs, options.cutting()
    except ValidationError as error:
        raise BadMaterial(f"Row {number + 1} is not a valid request: {invalid(error)}") from error


def _for_provider(
    folder: Path, requests: Sequence[tuple[Inputs, Options]], progress: Progress
) -> list[tuple[Inputs, Options]]:
    """Return the requests without settings that the provider of the description in `folder` does
    not take: likelihoods of given answers, and a temperature if it permits none."""
    description = HostedDescription.read((folder / HOSTED_FILE).read_bytes())
    changes: dict[str, Any] = {"reference": None}
    if "temperature" not in description.parameters:
        changes["temperature"] = SamplingOptions().temperature
        progress.warn(
            "The description permits no temperature, so the provider samples its answers: another "
            "evaluation gives other results."
        )
    return [
        (inputs, options.model_copy(update=changes))
        if isinstance(options, SamplingOptions)
        else (inputs, options)
        for inputs, options in requests
    ]


def _prompted(
    prompt: PromptDocument | None, requests: Sequence[tuple[Inputs, Options]]
) -> list[tuple[Inputs, Options] | RequestInvalid]:
    """Return the requests with the prompt filled in, as in serving, or the reason for a refusal.

    Rows do not set variables, so each variable needs a default. Raises BadMaterial.
    """
    if prompt is None:
        return list(requests)
    filled: list[tuple[Inputs, Options] | RequestInvalid] = []
    for inputs, options in requests:
        if not isinstance(inputs, GenerationInputs) or not isinstance(options, SamplingOptions):
            raise BadMaterial("Only answers to messages are measured with a prompt.")
        try:
            filled.append((prompt.filled(inputs), prompt.measured(options)))
        except RequestInvalid as error:
            filled.append(error)
    return filled


def _check_results(plan: EvaluationPlan, outcomes: Sequence[Outcome | None]) -> None:
    """Raise BadMaterial if a runner's results are not of the type that its task declares."""
    if plan.result_type is None:
        return
    declared = TypeAdapter(list[plan.result_type], config=_RESULTS)  # type: ignore[name-defined]
    for number, outcome in enumerate(outcomes):
        try:
            declared.validate_python([] if outcome is None else outcome.results)
        except ValidationError as error:
            raise BadMaterial(
                f"The result of row {number + 1} is not of the type that the task declares: "
                f"{invalid(error)}"
            ) from error


def torch_threads() -> int:
    """Return the number of threads that torch uses in this process, by the job's limit."""
    import torch

    threads: int = torch.get_num_threads()
    return threads


def ask(
    model: Judge,
    requests: Sequence[tuple[Inputs, Options]],
    progress: Progress,
    compact: Compact | None = None,
) -> list[Outcome]:
    """Answer requests with a model that is loaded only for this call. `compact` is applied to the
    results of each request when they arrive.

    Raises:
        BadMaterial: the model cannot be loaded, or refuses a request.
        Canceled: `progress` requested the end.
    """
    try:
        engine: Engine = load_name(model.engine)(
            model.folder,
            architectures=model.architectures,
            runner=model.runner,
            threads=torch_threads(),
        )
    except UnsupportedModel as error:
        raise BadMaterial(f"{model.name} cannot be used. {error}") from error
    try:
        run = _Run(engine, progress, total=len(requests))
        outcomes = run.answer(requests, None, compact)
    finally:
        engine.close()
    if run.refusal:
        raise BadMaterial(f"{model.name} refused a request. {run.refusal}")
    return [_answered(each) for each in outcomes]


def _judge(judge: Judge, progress: Progress) -> AskModel:
    def judged(requests: Sequence[tuple[Inputs, Options]]) -> list[Outcome]:
        progress.log(f"{judge.name} judges {len(requests)} answers.")
        shortened = [(inputs, options.cutting()) for inputs, options in requests]
        outcomes = ask(judge, shortened, progress)
        cut = sum(each.is_cut for each in outcomes)
        warn_of_cut(progress, cut, len(requests), f"{judge.name} read only a part of each")
        return outcomes

    return judged


def _with_media(row: dict[str, Any], columns: Sequence[str], folder: Path | None) -> dict[str, Any]:
    if not columns:
        return row
    if folder is None:
        raise BadMaterial("The dataset's media files are missing.")
    return {**row, **{name: folder / row[name] for name in columns}}


def _load(request: EvaluationRequest) -> Engine:
    plan = request.plan
    try:
        engine: Engine = load_name(plan.engine)(
            request.version if request.base is None else request.base,
            architectures=plan.architectures if request.base is None else plan.base_architectures,
            runner=plan.runner,
            # Egress workers have no torch.
            threads=1 if plan.hosted else torch_threads(),
        )
    except UnsupportedModel as error:
        raise BadMaterial(f"The version cannot be evaluated. {error}") from error
    if request.base is not None:
        try:
            engine.add_adapter(ADAPTER, request.version)
        except ValueError as error:
            engine.close()
            raise BadMaterial(f"The version cannot be evaluated. {error}") from error
    return engine


@dataclass(slots=True)
class _Pending:
    """The answer of one row while it is generated."""

    finished: Callable[[], None]
    compact: Compact | None = None
    parts: list[str] = field(default_factory=list)
    done: Done | None = None
    failed: Failed | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Delta):
            self.parts.append(event.text)
            return
        if isinstance(event, Done):
            self.done = event
            if self.compact is not None:
                self.done = replace(event, results=self.compact(event.results or []))
        elif isinstance(event, Failed):
            self.failed = event
        else:
            return
        self.finished()


class _Run:
    """Runs requests on one engine, a bounded number at a time, and reports progress in rows."""

    def __init__(self, engine: Engine, progress: Progress, total: int) -> None:
        self._engine = engine
        self._progress = progress
        self._total = total
        self._answered = 0
        self._changed = threading.Condition()
        self._running = 0
        self.refusal = ""

    def answer(
        self,
        requests: Sequence[tuple[Inputs, Options] | RequestInvalid],
        adapter: str | None,
        compact: Compact | None = None,
    ) -> list[Outcome | None]:
        """Return the outcome of each request; None if the prompt or the engine refused it.

        Raises:
            BadMaterial: the engine failed on a request.
            Canceled: `progress` requested the end.
        """
        pending: list[_Pending | None] = []
        for number, each in enumerate(requests):
            self._wait_until_below(IN_FLIGHT)
            if isinstance(each, RequestInvalid):
                self.refusal = self.refusal or (
                    f"Row {number + 1} does not fit the prompt: {each.message}"
                )
                pending.append(None)
                continue
            inputs, options = each
            sink = _Pending(self._one_less, compact)
            request = EngineRequest(
                request_id=f"{adapter or 'alone'}-{number}",
                inputs=inputs,
                options=options,
                adapter=adapter,
            )
            with self._changed:
                self._running += 1
            try:
                self._engine.submit(request, sink)
            except RequestRefused as error:
                self._one_less()
                self.refusal = self.refusal or f"Row {number + 1}: {error}"
                pending.append(None)
            else:
                pending.append(sink)
        self._wait_until_below(1)
        return [
            None if each is None else _outcome(number, each) for number, each in enumerate(pending)
        ]

    def finish(self) -> None:
        """Report all rows as done: some need no answer, or no second one for reference."""
        self._progress.metric(self._total, self._total, {})

    def _one_less(self) -> None:
        with self._changed:
            self._running -= 1
            self._answered += 1
            self._changed.notify_all()

    def _wait_until_below(self, limit: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running < limit, _POLL_S)
                below, answered = self._running < limit, self._answered
            if self._progress.should_stop():
                raise Canceled
            if below:
                if answered:
                    self._progress.metric(answered, self._total, {})
                return


def _outcome(number: int, pending: _Pending) -> Outcome:
    done, failed = pending.done, pending.failed
    # Rows are never canceled here, so a canceled answer is incomplete.
    if done is None or done.finish_reason == "canceled":
        raise BadMaterial(
            f"The model failed on row {number + 1}: "
            f"{failed.message if failed else 'its answer was broken off'}"
        )
    return Outcome("".join(pending.parts), done.results or [], is_cut=bool(done.cut_inputs))


def _answered(outcome: Outcome | None) -> Outcome:
    if outcome is None:
        raise BadMaterial("The base cannot answer a row that the version answers.")
    return outcome


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
