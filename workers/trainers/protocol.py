"""Protocol of trainers and evaluators: files and typed requests in, results and progress out.

They know no Django, no job and no MLflow, so that they can be tested and benchmarked alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from registry.catalog.inputs import Inputs, Options
from registry.catalog.prompt import PromptDocument


class Canceled(Exception):
    """`Progress.should_stop` said so; nothing was delivered."""


class BadMaterial(Exception):
    """The files or settings cannot be used; the message says what and why, for a person."""


class Progress(Protocol):
    """Receiver of a run's reports, called from the thread that runs it."""

    def log(self, message: str) -> None:
        """One line for a person."""

    def warn(self, message: str) -> None:
        """One line that a person must not miss, such as rows that are left out."""

    def metric(self, step: int, total: int, values: dict[str, float]) -> None:
        """One point of the curves, such as {"loss": 1.9, "learning_rate": 5e-5}."""

    def checkpoint(self, folder: Path) -> None:
        """A checkpoint was written to its end; a later attempt may be given it to resume from.

        Its folder lies in `TrainingRequest.checkpoints`, and is called `checkpoint-` and a number
        of up to 12 digits: the later attempt gets the one with the highest number. Another name or
        place ends the run, with a sentence that says so.
        """

    def should_stop(self) -> bool:
        """Return True to raise `Canceled` now: called at least every second of work."""


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """One fine-tuning run.

    `base` is a folder with verified files; `train_file` is JSON lines in the dataset schema of the
    task; the trainer holds out its own validation split from it. `media` is the folder of its media
    files, by SHA-256. Checkpoints are folders `checkpoint-N` in `checkpoints`, reported to
    `Progress.checkpoint`; `resume_from` is a copy of one, whose bytes are those that were written.
    `output` is empty and holds exactly the version's files afterward.
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
    """Result of a training run: `metrics` measured on the validation split, `parameters` as
    actually used. `rows_cut` rows were longer than is read, and lost a part.
    """

    metrics: dict[str, float]
    parameters: dict[str, Any]
    notes: str = ""
    rows_cut: int = 0


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """The parts of a task's declaration (`registry.catalog`) that measuring needs."""

    engine: str
    runner: str
    architectures: tuple[str, ...]
    request: Callable[[dict[str, Any]], tuple[Inputs, Options]]
    score: str
    result_type: Any = None
    media_columns: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judge:
    """A model of another task that reads answers, or embeds texts: its verified files, and how it
    is served.

    `name` and `digest` are those of its version.
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

    With `prompt`, that of a prompt version, `version` and `base` are what the prompt stands on,
    and the baseline is that version without the prompt.

    `train_file` holds the rows that the version was trained on, for scores that fit a baseline to
    them. `media` is the folder of both files' media, by SHA-256. `max_rows` measures the first
    rows only; all of them when it is None. `judge` reads the answers where the task declares one.
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
    """`baseline` is measured in the same run on the same rows: a simple trained classifier, the
    majority class, or the untuned base.

    `details` may hold, for drawing: `confusion_matrix` {labels, matrix} with truth down,
    `per_class` {label: {f1, support}}, and `samples` [{input, expected, output, baseline?}];
    `input_image`, `expected_image`, `output_image` and `baseline_image` of a sample are thumbnails
    (`workers.trainers.thumbnails`); `input_audio` and the like are the SHA-256 of a recording of
    the data, or a short recording that the model made, in a data URL.
    It may hold `right` {n, bits}, for comparing two versions row by row: hexadecimal, the first
    row's bit first, set where the answer was right. It may hold all `baselines`, the one in
    `baseline` first: [{name, metrics, trained_on, right?}], 5 at most, with the number of rows that
    each was trained on.
    `intervals` {metrics: {name: interval}, baseline: …} has those that only results row by row
    give, each {low, high, n, method}; the registry adds those that follow from value and sample
    size. `slices` are [{by, name, n, metric, value, baseline?, low?, high?, method?}], 20 at most.
    `reference` are some requests and answers, [{row, inputs, options, text, results}], to compare
    with after an upgrade; `evaluate` fills it in.
    """

    metrics: dict[str, float]
    baseline: dict[str, float]
    baseline_name: str
    sample_size: int
    details: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)
    reference: list[dict[str, Any]] = field(default_factory=list)
