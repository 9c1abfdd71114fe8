"""The declaration of a task: everything that the rest of the platform knows about it.

A task is one folder with a `TASK` of type `Task`, registered under the entry-point group
`assay.tasks`. This module and those it imports load neither Django nor torch, so that gateway,
portal and registry can read declarations; runners, recipes and scores are dotted names
(`package.module:name`) that only workers import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from governance.usage.units import Unit as Unit
from registry.catalog.endpoints import Endpoint
from registry.catalog.inputs import Inputs, NoOptions, Options

# Version of the interface of plug-ins (`assay.plugins`), raised when a plug-in may have to change.
INTERFACE = 1
# The two engines that carry all tasks.
BATCH = "workers.engines.batch_engine:BatchEngine"
GENERATION = "workers.engines.generation:GenerationEngine"


class Modality(StrEnum):
    """A kind of input or output, as people and previews see it."""

    TEXT = "text"
    MESSAGES = "messages"
    LABEL = "label"
    VECTOR = "vector"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    SERIES = "series"
    TABLE = "table"
    BOXES = "boxes"
    MASKS = "masks"
    SPANS = "spans"
    RANKING = "ranking"


class Family(StrEnum):
    """A family of foundation models, as people look for them. Its value is shown."""

    LANGUAGE = "Language"
    VISION = "Vision"
    MULTIMODAL = "Multimodal"
    AUDIO = "Audio"
    VIDEO = "Video"
    DECISIONS = "Decision support"
    SAFETY = "Safety"


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number.

    `higher_is_better` decides the direction of a gate. A `proportion` is a share of the rows, each
    of which is right or wrong.
    """

    name: str
    title: str
    higher_is_better: bool = True
    unit: str = ""
    proportion: bool = False


@dataclass(frozen=True, slots=True)
class RowKind:
    """One kind of dataset rows.

    Attributes:
        name: Names it in the API; empty for the kind that the task itself declares.
        title: Shown to people, such as "preference pairs".
        row: Schema of one row. A column of media has the type `ImageFile` or `AudioFile`
            (`registry.catalog.columns`).
        row_input: The part of a row that a model sees, as text (media: their SHA-256). Two rows
            with the same input in training and test data are a leak.
        examples: Valid rows, to see and to copy.
    """

    name: str
    title: str
    row: type[BaseModel]
    row_input: Callable[[dict[str, Any]], str]
    examples: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to train a version.

    `makes` is the kind of version (`full`, `adapter`). `train` is the dotted name of
    `(TrainingRequest, Progress) -> TrainingResult`. `hyperparameters` is the one schema of its
    settings: forms, API, validation and the training process all use it. `bases` names the tasks
    whose models it can start from; its own task when empty. `row_kind` names the kind of rows that
    it learns from; those of the task itself when empty. Several processes, on several devices and
    machines, can share the work of a `distributed` recipe.
    """

    method: str
    title: str
    makes: str
    train: str
    hyperparameters: type[BaseModel]
    bases: frozenset[str] = frozenset()
    row_kind: str = ""
    distributed: bool = False


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measurement of a version on a dataset, through the runner that serves it.

    `request` turns a dataset row into the inputs and options of one inference request. `score` is
    the dotted name of `(ScoreRequest) -> EvaluationResult`: it gets rows and the runner's results
    and computes the metrics, baselines, slices and samples. With `uses_training_rows` it also
    gets the rows that the version was trained on, to fit a baseline to them. `judge` names a task
    whose newest trusted model reads the answers for the score, such as speech recognition for
    speech; the evaluation records which version that was.
    """

    score: str
    metrics: tuple[Metric, ...]
    primary_metric: str
    request: Callable[[dict[str, Any]], tuple[Inputs, Options]]
    uses_training_rows: bool = False
    judge: str = ""


@dataclass(frozen=True, slots=True)
class Playground:
    """Form of requests in the playground and in code examples.

    Attributes:
        body: JSON template of a request. `$model`, `$text`, `$numbers`, `$lines` and `$messages`
            stand for the deployment, the text field, the numbers in it, the lines of the second
            field and the conversation, `$file` and `$file_url` for the chosen file in base64 and as
            a `data:` URL, `$lines_text` for the second field as one text, `$table` for a form with
            a field for each feature that the model lists. None when the file is itself the body.
        path: Where it is sent, `{model}` standing for the deployment; the main endpoint when empty.
        text: First content of the text field.
        lines: First content of the second field.
        lines_label: Label of the second field; empty when there is none.
    """

    body: Mapping[str, Any] | None
    path: str = ""
    text: str = ""
    lines: tuple[str, ...] = ()
    lines_label: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of work that a model does.

    Attributes:
        interface: Version of `assay.plugins` that it was written for, as a number: what `INTERFACE`
            was then.
        name: Hugging Face's name for it, such as `image-classification`.
        title: Shown to people.
        description: One sentence for people.
        modality: The main input, for access rules: `text`, `image`, `audio`, …
        family: Where people find it.
        inputs: What a request holds.
        outputs: What an answer holds.
        architectures: Class names that intake accepts in `config.json`, or in `model_index.json`.
        components: Classes that a `model_index.json` may name for its parts, as `library.Class`.
        engine: Dotted name of the engine: `BATCH` or `GENERATION`.
        runner: Dotted name of the runner that the batch engine drives; empty for generation.
        unit: What its requests are metered in.
        input_schema: Typed inputs of one request, as engine and runner get them.
        option_schema: Typed settings of one request.
        result_type: Type of one result, as the runner's `split` returns it; None for text.
        endpoints: Where applications reach it; the first one is its main endpoint.
        sample: A request body that works, for examples.
        playground: How the playground asks; None leaves the task out of it.
        row, row_input, examples: The rows that it is trained and measured on, as in `RowKind`.
        other_rows: Further kinds of rows, for recipes that learn from others.
        recipes: Ways to train it, the default first; empty when it is not trained here.
        evaluation: How it is measured; None when it is not.
        feedback_row: Makes the row that teaches an answer, a text or label, for the inputs of one
            request; raises ValueError when none can be made. The answer has the spaces around it
            that were sent. None: feedback makes no rows.
    """

    interface: int
    name: str
    title: str
    description: str
    modality: str
    inputs: tuple[Modality, ...]
    outputs: tuple[Modality, ...]
    architectures: tuple[str, ...]
    engine: str
    unit: Unit
    input_schema: type[Inputs]
    endpoints: tuple[Endpoint, ...]
    sample: Mapping[str, Any]
    row: type[BaseModel]
    row_input: Callable[[dict[str, Any]], str]
    playground: Playground | None = None
    runner: str = ""
    option_schema: type[Options] = NoOptions
    family: Family = Family.LANGUAGE
    result_type: Any = None
    components: tuple[str, ...] = ()
    examples: tuple[dict[str, Any], ...] = ()
    other_rows: tuple[RowKind, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    evaluation: Evaluation | None = None
    feedback_row: Callable[[Any, str], dict[str, Any]] | None = None

    @property
    def streams_text(self) -> bool:
        """Return whether it generates text from text, as servers of language models do."""
        return self.engine == GENERATION and Modality.IMAGE not in self.inputs

    @property
    def endpoint(self) -> str:
        """Path of the main endpoint."""
        return self.endpoints[0].path

    @property
    def row_kinds(self) -> tuple[RowKind, ...]:
        """Every kind of rows, its own first."""
        own = RowKind("", self.name, self.row, self.row_input, self.examples)
        return (own, *self.other_rows)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The measured numbers; none when the task is not evaluated."""
        return self.evaluation.metrics if self.evaluation else ()

    @property
    def primary_metric(self) -> str:
        """Name of the metric that people look at first; empty when the task is not evaluated."""
        return self.evaluation.primary_metric if self.evaluation else ""

    def metric(self, name: str) -> Metric:
        """Return the metric called `name`. Raises KeyError when the task has no such metric."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)

    def recipe(self, method: str) -> Recipe:
        """Return the recipe called `method`. Raises KeyError when the task has no such recipe."""
        for recipe in self.recipes:
            if recipe.method == method:
                return recipe
        raise KeyError(method)

    def row_kind(self, name: str) -> RowKind:
        """Return the kind of rows called `name`. Raises KeyError when the task has no such kind."""
        for kind in self.row_kinds:
            if kind.name == name:
                return kind
        raise KeyError(name)
