"""Zero-shot classification: assign a text labels that the request names."""

from __future__ import annotations

from assay.plugins import declare
from tasks.zero_shot_classification.endpoints import ZeroShotRequest, read_choice
from tasks.zero_shot_classification.schema import (
    ChoiceOfLabels,
    ZeroShotInputs,
    ZeroShotOptions,
    evaluation_request,
    feedback_row,
    row_input,
)

_TEXT = "The battery is empty after two hours, and the menu is slow."
_LABELS = ("film review", "product review", "newspaper editorial")

TASK = declare.Task(
    interface=1,
    name="zero-shot-classification",
    title="Zero-shot classification",
    description="Assigns a text labels that each request names, without training on them.",
    modality="text",
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.LABEL,),
    architectures=(
        "BertForSequenceClassification",
        "DistilBertForSequenceClassification",
        "MPNetForSequenceClassification",
        "RobertaForSequenceClassification",
        "XLMRobertaForSequenceClassification",
        "BertModel",
        "DistilBertModel",
        "MPNetModel",
        "RobertaModel",
        "XLMRobertaModel",
    ),
    engine=declare.BATCH,
    runner="tasks.zero_shot_classification.runner:ZeroShotRunner",
    unit=declare.Unit.TOKENS,
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/zero-shot-classification",
            read_choice,
            named=True,
            request=ZeroShotRequest,
            summary="Hugging Face's shape: the labels of the request, as `[{label, score}]`.",
        ),
    ),
    input_schema=ZeroShotInputs,
    option_schema=ZeroShotOptions,
    result_type=list[declare.Label],
    sample={"inputs": _TEXT, "parameters": {"candidate_labels": list(_LABELS)}},
    playground=declare.Playground(
        body={"inputs": "$text", "parameters": {"candidate_labels": "$lines"}},
        text=_TEXT,
        lines=_LABELS,
        lines_label="Labels",
    ),
    row=ChoiceOfLabels,
    row_input=row_input,
    examples=(
        {"text": _TEXT, "candidate_labels": list(_LABELS), "label": "product review"},
        {
            "text": "The plot is thin, but the two leads carry it.",
            "candidate_labels": list(_LABELS),
            "label": "film review",
        },
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.zero_shot_classification.score:score",
        metrics=(
            declare.Metric("accuracy", "Accuracy", proportion=True),
            declare.Metric("macro_f1", "Macro-F1"),
        ),
        primary_metric="accuracy",
    ),
    feedback_row=feedback_row,
)
