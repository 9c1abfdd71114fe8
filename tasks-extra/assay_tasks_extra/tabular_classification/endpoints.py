"""POST /v1/tasks/tabular-classification/{model}, in Hugging Face's inference shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from assay.plugins import declare
from assay_tasks_extra.tabular_classification.schema import MAX_LABELS, Table, TableInputs


class Parameters(declare.Strict):
    """`top_k` requests probabilities of the best labels; without it, each row gets one label."""

    top_k: Annotated[int, Field(ge=1, le=MAX_LABELS)] | None = None


class InputTable(declare.Strict):
    """The table of the older form."""

    data: Table


class TabularClassificationRequest(declare.Strict):
    """A `table` {feature: [value of each row]}, or `inputs` {"data": table}.

    A number may be a text, as in the client's examples; a missing value is null.
    """

    table: Table | None = None
    inputs: InputTable | None = None
    parameters: Parameters | None = None


def read_table(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request. Raises RequestInvalid."""
    request = declare.parse(TabularClassificationRequest, body.data)
    nested = request.inputs.data if request.inputs is not None else None
    table = nested if request.table is None else request.table
    if table is None or (nested is not None and request.table is not None):
        raise declare.RequestInvalid(
            "Send the rows once, as table: {feature: [value of each row]}.",
            param="table",
            code="missing_parameter",
        )
    return declare.Plan(
        model=name,
        inputs=TableInputs(table=table),
        renderer=PredictionsRenderer(request.parameters.top_k if request.parameters else None),
        tokens=0,
        prompt_tokens=0,
        units=sum(len(values) for values in table.values()),
    )


@dataclass(slots=True)
class PredictionsRenderer:
    """The label of each row; with `top_k` a list of [{label, score}, …] for each row."""

    top_k: int | None

    def whole(self, answer: declare.Answer) -> list[Any]:
        if self.top_k is None:
            return [labels[0]["label"] for labels in answer.results]
        return [labels[: self.top_k] for labels in answer.results]
