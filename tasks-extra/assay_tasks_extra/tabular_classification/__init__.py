"""Tabular classification: one label out of a fixed set for a record of named features."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from assay_tasks_extra.tabular_classification.endpoints import (
    TabularClassificationRequest,
    read_table,
)
from assay_tasks_extra.tabular_classification.schema import LabeledRecord, TableInputs


class Hyperparameters(BaseModel):
    """Settings that the recipes share. `validation_fraction` of the rows is held out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation_fraction: float = Field(default=0.2, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


class BoostingHyperparameters(Hyperparameters):
    """Settings of boosted trees. Each round adds a tree for each label; the number of rounds with
    the lowest loss on the validation rows is kept."""

    rounds: int = Field(default=200, ge=1, le=2_000)
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    max_leaves: int = Field(default=15, ge=2, le=255)
    min_rows_in_leaf: int = Field(default=10, ge=1, le=10_000)
    l2: float = Field(default=1.0, ge=0, le=1e6)


class LinearHyperparameters(Hyperparameters):
    """Settings of logistic regression. A small `inverse_regularization` keeps weights small."""

    inverse_regularization: float = Field(default=1.0, gt=0, le=1e6)


def row_input(row: dict[str, Any]) -> str:
    """Return the features: equal features in training and test data are a leak."""
    return json.dumps(row["features"], sort_keys=True)


def evaluation_request(row: dict[str, Any]) -> tuple[TableInputs, declare.NoOptions]:
    """Return the request that classifies the row's record."""
    table = {name: [value] for name, value in row["features"].items()}
    return TableInputs(table=table), declare.NoOptions()


def feedback_row(inputs: TableInputs, answer: str) -> dict[str, Any]:
    """Return the row that teaches the label of one record.

    Raises:
        ValueError: the table has several records.
    """
    if any(len(values) != 1 for values in inputs.table.values()):
        raise ValueError("the table has several records; feedback needs exactly one")
    features = {name: values[0] for name, values in inputs.table.items()}
    return {"features": features, "label": answer.strip()}


TASK = declare.Task(
    interface=1,
    name="tabular-classification",
    title="Tabular classification",
    description="Assigns a record of named numbers and categories one of a fixed set of labels.",
    modality="structured",
    family=declare.Family.DECISIONS,
    inputs=(declare.Modality.TABLE,),
    outputs=(declare.Modality.LABEL,),
    architectures=("TabularClassifier",),
    engine=declare.BATCH,
    runner="assay_tasks_extra.tabular_classification.runner:TabularRunner",
    unit=declare.Unit.POINTS,
    input_schema=TableInputs,
    result_type=list[declare.Label],
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/tabular-classification",
            read_table,
            named=True,
            request=TabularClassificationRequest,
            summary="Hugging Face's shape: a `table` by feature; a label for each row.",
        ),
    ),
    sample={"table": {"age": [52, 34], "smoker": ["no", "yes"]}, "parameters": {"top_k": 2}},
    playground=declare.Playground(body={"table": "$table", "parameters": {"top_k": 10}}),
    row=LabeledRecord,
    row_input=row_input,
    examples=(
        {"features": {"age": 52, "smoker": "no", "pressure": 121.5}, "label": "benign"},
        {"features": {"age": 67, "smoker": "yes", "pressure": None}, "label": "malignant"},
    ),
    recipes=(
        declare.Recipe(
            method="boosting",
            title="Gradient boosting",
            makes="full",
            train="assay_tasks_extra.tabular_classification.train:train_trees",
            hyperparameters=BoostingHyperparameters,
        ),
        declare.Recipe(
            method="linear",
            title="Logistic regression",
            makes="full",
            train="assay_tasks_extra.tabular_classification.train:train_linear",
            hyperparameters=LinearHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="assay_tasks_extra.tabular_classification.score:score",
        metrics=(
            declare.Metric("accuracy", "Accuracy", proportion=True),
            declare.Metric("macro_f1", "Macro-F1"),
            declare.Metric("auc", "AUC"),
        ),
        primary_metric="macro_f1",
        uses_training_rows=True,
    ),
    feedback_row=feedback_row,
)
