"""What one task of the catalogue states. API, portal, docs, demo and tests are drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number: `higher_is_better` decides which way a gate looks. A `proportion` is a
    share of the rows, each of which is right or wrong.
    """

    name: str
    title: str
    higher_is_better: bool = True
    unit: str = ""
    proportion: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of work that a model does.

    `engine`, `trainer` and `evaluator` are dotted names that only workers import; where one is
    empty, the task is not trained or not evaluated.
    `row` is the schema of one dataset row; `hyperparameters` that of a fine-tuning request;
    `row_input` gives, of a validated row, the text that a model sees: a row of training and one of
    test data with the same input are a leak.
    `methods` maps a fine-tuning method (`full`, `lora`) to the kind of version it makes.
    `examples` are valid rows, for people to see and copy.
    With `trained_baseline` the evaluator is given the version's training rows, to train a simple
    baseline on them.
    `endpoint` is the path that applications call; `sample` a request body that works.
    """

    name: str
    title: str
    modality: str
    endpoint: str
    engine: str
    evaluator: str
    trainer: str
    row: type[BaseModel]
    row_input: Callable[[dict[str, Any]], str]
    hyperparameters: type[BaseModel]
    methods: dict[str, str]
    metrics: tuple[Metric, ...]
    primary_metric: str
    sample: dict[str, Any]
    description: str = ""
    examples: tuple[dict[str, Any], ...] = ()
    trained_baseline: bool = False

    def metric(self, name: str) -> Metric:
        """Raises KeyError when the task measures no such thing."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)
