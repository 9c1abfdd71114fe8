"""POST /v1/tasks/zero-shot-classification/{model}, in the shape of Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from assay.plugins import declare
from tasks.zero_shot_classification.schema import (
    MAX_CHARACTERS,
    CandidateLabels,
    Template,
    ZeroShotInputs,
    ZeroShotOptions,
)

# Bound on characters; the text is read with each label.
MAX_READ = 2_000_000


class Parameters(declare.Strict):
    """`candidate_labels` are the labels to choose from. `truncation` cuts a text that exceeds the
    model's context."""

    candidate_labels: CandidateLabels
    hypothesis_template: Template | None = None
    multi_label: bool | None = None
    truncation: declare.Truncation | None = None


class ZeroShotRequest(declare.Strict):
    """One text."""

    inputs: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
    parameters: Parameters


def read_choice(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(ZeroShotRequest, body.data)
    labels = request.parameters.candidate_labels
    if len(set(labels)) != len(labels):
        raise declare.RequestInvalid(
            "candidate_labels names a label twice.", param="parameters.candidate_labels"
        )
    if len(request.inputs) * len(labels) > MAX_READ:
        raise declare.RequestInvalid(
            f"The text is read with each of {len(labels)} labels; together at most {MAX_READ:,} "
            "characters are accepted. Send a shorter text or fewer labels.",
            param="inputs",
        )
    unused = {"candidate_labels", "truncation"}
    settings = request.parameters.model_dump(exclude_none=True, exclude=unused)
    options = ZeroShotOptions(
        truncate=declare.pipeline_side(request.parameters.truncation), **settings
    )
    tokens_each = declare.estimate_tokens(
        [request.inputs, options.hypothesis_template, max(labels, key=len)]
    )
    tokens = (tokens_each + 4) * len(labels)
    return declare.Plan(
        model=name,
        inputs=ZeroShotInputs(text=request.inputs, candidate_labels=labels),
        options=options,
        renderer=LabelRenderer(),
        tokens=tokens,
        prompt_tokens=tokens,
    )


@dataclass(slots=True)
class LabelRenderer:
    """Every label with its score, best first."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        labels: list[Any] = answer.results[0]
        return labels
