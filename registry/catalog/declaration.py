"""Declaration of a task: everything that the rest of the platform knows about it.

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
# The two engines that run all tasks.
BATCH = "workers.engines.batch_engine:BatchEngine"
GENERATION = "workers.engines.generation:GenerationEngine"


class Modality(StrEnum):
    """A kind of input or output."""

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
    """A family of foundation models, by which people browse. The portal shows its value."""

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

    `higher_is_better` decides the direction of a gate. A `proportion` is the share of rows that are
    right. A metric of `likelihood` needs the probabilities of reference texts. Providers of hosted
    models do not state them, so the score leaves this metric out if outcomes have no results.
    """

    name: str
    title: str
    higher_is_better: bool = True
    unit: str = ""
    proportion: bool = False
    likelihood: bool = False


@dataclass(frozen=True, slots=True)
class RowKind:
    """One kind of dataset rows.

    Attributes:
        name: Name in the API; empty for the task's own kind.
        title: Name for people, such as "preference pairs".
        row: Schema of one row. A column of media has the type `ImageFile` or `AudioFile`
            (`registry.catalog.columns`).
        row_input: Returns the part of a row that a model gets, as text (for media, their SHA-256).
            The same input in training and test data is a leak.
        examples: Valid rows, to read and to copy.
    """

    name: str
    title: str
    row: type[BaseModel]
    row_input: Callable[[dict[str, Any]], str]
    examples: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """A method of training a version.

    `makes` is the kind of version (`full`, `adapter`). `train` is the dotted name of
    `(TrainingRequest, Progress) -> TrainingResult`. `hyperparameters` is the schema of the settings
    that forms, API, validation and the training process share. `bases` names the tasks whose models
    it can start from; empty for its own task. `row_kind` names the kind of its training rows; empty
    for the task's own kind. Several processes, on several devices and machines, can share the work
    of a `distributed` recipe.
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
    gets the version's training rows, to fit a baseline. `judge` names a task whose newest trusted
    model reads the answers for the score, such as speech recognition for speech; the evaluation
    records the judge's version.
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
            field and the conversation; `$file` and `$file_url` for the chosen file in base64 and as
            a `data:` URL; `$lines_text` for the second field as one text; `$table` for a form with
            a field for each feature of the model. None when the file itself is the body.
        path: Path of the request, `{model}` for the deployment; empty for the main endpoint.
        text: First content of the text field.
        lines: First content of the second field.
        lines_label: Label of the second field; empty for a form without one.
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
        interface: Version of `assay.plugins` for which the task was written, as a number: the value
            of `INTERFACE` at that time.
        name: Hugging Face's name of the task, such as `image-classification`.
        title: Name for people.
        description: One sentence for people.
        modality: The main input, for access rules: `text`, `image`, `audio`, …
        family: The family under which people find the task.
        inputs: Modalities of a request.
        outputs: Modalities of an answer.
        architectures: Class names that intake accepts in `config.json`, or in `model_index.json`.
        components: Classes that a `model_index.json` may name for its parts, as `library.Class`.
        engine: Dotted name of the engine: `BATCH` or `GENERATION`.
        runner: Dotted name of the runner that the batch engine drives; empty for generation.
        unit: Unit in which its requests are metered.
        input_schema: Typed inputs of one request, for engine and runner.
        option_schema: Typed settings of one request.
        result_type: Type of one result, as the runner's `split` returns it; None for text.
        endpoints: Paths for applications; the first one is the main endpoint.
        sample: A valid request body, for examples.
        playground: Form of the playground; None leaves the task out of it.
        row, row_input, examples: Its rows for training and evaluation, as in `RowKind`.
        other_rows: Further kinds of rows, for recipes that name them.
        recipes: Recipes for training, the default first; empty if it cannot be trained here.
        evaluation: Measurement of its versions; None if they cannot be evaluated.
        feedback_row: Returns the training row for the inputs of one request and the right answer, a
            text or label; raises ValueError for an answer that fits no row. The answer keeps the
            spaces around it. None if feedback cannot become rows.
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
        """Return whether the task generates text from text, as language models do."""
        return self.engine == GENERATION and Modality.IMAGE not in self.inputs

    @property
    def base_architectures(self) -> tuple[str, ...]:
        """Architectures that the base of an adapter may have. They include encoders, such as
        `BertModel`, if a recipe for adapters starts from models of another task."""
        adapting = (each for each in self.recipes if each.makes == "adapter")
        if all(each.bases <= {self.name} for each in adapting):
            return self.architectures
        encoders = {f"{name}Model" for each in self.architectures if (name := _stem(each))}
        return (*self.architectures, *sorted(encoders))

    @property
    def endpoint(self) -> str:
        """Path of the main endpoint."""
        return self.endpoints[0].path

    @property
    def row_kinds(self) -> tuple[RowKind, ...]:
        """Every kind of rows, the task's own first."""
        own = RowKind("", self.name, self.row, self.row_input, self.examples)
        return (own, *self.other_rows)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of its evaluation; empty without one."""
        return self.evaluation.metrics if self.evaluation else ()

    @property
    def primary_metric(self) -> str:
        """Name of the primary metric; empty if the task is not evaluated."""
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


def _stem(architecture: str) -> str:
    """Return the name of a model without its head: `Bert` for `BertForTokenClassification`."""
    stem, has_head, _ = architecture.partition("For")
    return stem if has_head else ""
