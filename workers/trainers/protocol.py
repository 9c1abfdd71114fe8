"""Protocol of trainers and evaluators: files and typed requests in, results and progress out.

They do not depend on Django, jobs or MLflow, so that they can be tested and benchmarked alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from registry.catalog.inputs import Inputs, Options
from registry.catalog.prompt import PromptDocument


class Canceled(Exception):
    """`Progress.should_stop` returned True; nothing was delivered."""


class BadMaterial(Exception):
    """The files or settings cannot be used; the message tells people which ones and why."""


class Progress(Protocol):
    """Receiver of a run's reports, called from the thread that runs it."""

    def log(self, message: str) -> None:
        """Add a line to the log for people."""

    def warn(self, message: str) -> None:
        """Add a line that people must not miss, such as rows that are left out."""

    def metric(self, step: int, total: int, values: dict[str, float]) -> None:
        """Add a point to the curves, such as {"loss": 1.9, "learning_rate": 5e-5}."""

    def checkpoint(self, folder: Path) -> None:
        """Report a complete checkpoint, from which a later attempt may resume.

        Its folder must be `checkpoint-` and a number of up to 12 digits, in
        `TrainingRequest.checkpoints`; a later attempt gets the one with the highest number. Another
        name or place ends the run with an error that explains it.
        """

    def should_stop(self) -> bool:
        """Return whether to raise `Canceled` now. Call it at least once per second of work."""


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """One fine-tuning run.

    `base` is a folder of verified files. `train_file` contains JSON lines in the task's dataset
    schema; the trainer holds out a validation split from it. `media` is the folder of its media
    files, named by SHA-256. Checkpoints are folders `checkpoint-N` in `checkpoints`, reported to
    `Progress.checkpoint`; `resume_from` is an exact copy of one. `output` is empty at first, and
    holds exactly the version's files afterward.
    """

    task: str
    method: str  # "full" or "lora"
    base: Path
    train_file: Path
    output: Path
    checkpoints: Path
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    resume_from: Path | None = None
    media: Path | None = None


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Result of a training run: `metrics` measured on the validation split, and the `parameters`
    actually used. `rows_cut` rows were too long and were cut.
    """

    metrics: dict[str, float]
    parameters: dict[str, Any]
    notes: str = ""
    rows_cut: int = 0


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """The parts of a task's declaration (`registry.catalog`) that an evaluation needs. `hosted`: a
    provider runs the model, and the egress worker passes requests on."""

    engine: str
    runner: str
    architectures: tuple[str, ...]
    request: Callable[[dict[str, Any]], tuple[Inputs, Options]]
    score: str
    base_architectures: tuple[str, ...] = ()
    result_type: Any = None
    media_columns: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    hosted: bool = False


@dataclass(frozen=True, slots=True)
class Judge:
    """A model of another task that judges answers or embeds texts: its verified files, engine and
    runner. `name` and `digest` identify its version.
    """

    name: str
    digest: str
    folder: Path
    engine: str
    runner: str
    architectures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """One evaluation. For an adapter `base` is its base's folder, else None.

    For a prompt version, `prompt` is its document, `version` and `base` are those of the model
    version under it, and the baseline is that version without the prompt. The baseline of an
    adapter that generates text is its base. The base of a classifier's adapter is no baseline: its
    head is missing, or for other labels.

    `train_file` holds the version's training rows, for scores that fit a baseline to them. `media`
    is the folder of both files' media, named by SHA-256. `max_rows` limits the evaluation to the
    first rows; None means all. `judge` judges the answers if the task declares a judge.
    """

    plan: EvaluationPlan
    version: Path
    base: Path | None
    data_file: Path
    train_file: Path | None = None
    media: Path | None = None
    max_rows: int | None = None
    judge: Judge | None = None
    prompt: PromptDocument | None = None


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Result of an evaluation. `baseline` is measured in the same run on the same rows: a simple
    trained classifier, the majority class, or the untuned base.

    `details` may contain, for charts: `confusion_matrix` {labels, matrix} with one row per true
    label, `per_class` {label: {f1, support}}, and `samples` [{input, expected, output, baseline?}];
    `input_image`, `expected_image`, `output_image` and `baseline_image` of a sample are thumbnails
    (`workers.trainers.thumbnails`); `input_audio` and the like are the SHA-256 of a recording of
    the data, or a short recording that the model made, in a data URL.
    It may contain `right` {n, bits}, for comparing two versions row by row: hexadecimal, the first
    row's bit first, set if the answer was right. It may contain all `baselines`, the one in
    `baseline` first: [{name, metrics, trained_on, right?}], 5 at most; `trained_on` counts training
    rows.
    `intervals` {metrics: {name: interval}, baseline: …} has intervals that need the results of
    each row, {low, high, n, method}; the registry computes others from value and sample size.
    `slices` are [{by, name, n, metric, value, baseline?, low?, high?, method?}], 20 at most.
    `reference` are some requests and answers, [{row, inputs, options, text, results}], for
    comparison after an upgrade; `evaluate` fills it in.
    """

    metrics: dict[str, float]
    baseline: dict[str, float]
    baseline_name: str
    sample_size: int
    details: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)
    reference: list[dict[str, Any]] = field(default_factory=list)
