"""Tune an encoder, all weights or an adapter, into a text classifier."""

from __future__ import annotations

from typing import Any

import transformers

from assay.plugins import run
from tasks.text_classification import TASK, FineTuneHyperparameters, LoraHyperparameters

# The head starts from random weights, the encoder from trained ones: at one rate for both, the head
# has hardly changed when the encoder has converged (validation macro-F1 0.34 instead of 0.47). LoRA
# starts anew as well, so it learns as fast as the head.
HEAD_FACTOR = 10
HEAD_NAMES = ("classifier", "pooler", "pre_classifier")

# Classifier architecture of each encoder that can be a base.
_CLASSIFIERS = {
    "BertModel": "BertForSequenceClassification",
    "DistilBertModel": "DistilBertForSequenceClassification",
    "MPNetModel": "MPNetForSequenceClassification",
    "RobertaModel": "RobertaForSequenceClassification",
    "XLMRobertaModel": "XLMRobertaForSequenceClassification",
}


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Fine-tune, and keep the epoch with the best macro-F1 on the validation split.

    Raises:
        BadMaterial: Rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    adapts = request.method == "lora"
    schema = LoraHyperparameters if adapts else FineTuneHyperparameters
    settings = run.parse_settings(schema, request.hyperparameters)
    rows, dropped = run.distinct_rows(read_labelled(request.train_file), "text")
    split = run.split_by_label(rows, settings, progress)
    if dropped:
        progress.warn(f"{dropped} repeated texts are left out; each text counts once.")
    transformers.set_seed(settings.seed)
    model, tokenizer = _model(request, split.labels, settings)
    lengths = run.token_lengths(tokenizer, [row["text"] for row in rows])
    cut = sum(length > settings.max_length for length in lengths)
    limit = f"the first {settings.max_length} tokens (max_length)"
    run.warn_of_cut(progress, cut, len(rows), f"{limit}. The longest has {max(lengths)} tokens")
    return run.fit_classifier(
        request,
        progress,
        model=model,
        processor=tokenizer,
        head=run.Head(HEAD_NAMES, (1 if adapts else HEAD_FACTOR) * settings.learning_rate),
        split=split,
        settings=settings,
        examples=lambda part: _encoded(part, tokenizer, split.labels, settings.max_length),
        collator=transformers.DataCollatorWithPadding(tokenizer),
        parameters={"rows": len(rows) + dropped, "rows_left_out": dropped},
        rows_cut=lambda: cut,
        sampling="group_by_length",
    )


def read_labelled(path: Any) -> list[dict[str, Any]]:
    """Return rows {"text", "label"}. Raises BadMaterial."""
    return run.read_rows(
        path,
        lambda row: all(isinstance(row.get(key), str) and row[key] for key in ("text", "label")),
        '{"text": "…", "label": "…"}',
    )


def _model(
    request: run.TrainingRequest, labels: list[str], settings: FineTuneHyperparameters
) -> tuple[Any, Any]:
    if isinstance(settings, LoraHyperparameters):
        model = run.load_adaptable(request.base, TASK.base_architectures, labels, HEAD_NAMES)
    else:
        model = run.load_base(
            request.base,
            (*_CLASSIFIERS, *TASK.architectures),
            trained_as=lambda name: _CLASSIFIERS.get(name, name),
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
    run.check_length(model, settings.max_length)
    tokenizer = run.load_tokenizer(request.base)
    tokenizer.model_max_length = settings.max_length
    return model, tokenizer


def _encoded(
    rows: list[dict[str, Any]], tokenizer: Any, labels: list[str], max_length: int
) -> list[dict[str, Any]]:
    number = {label: index for index, label in enumerate(labels)}
    tokens = tokenizer([row["text"] for row in rows], truncation=True, max_length=max_length)
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": number[row["label"]]}
        for ids, mask, row in zip(tokens["input_ids"], tokens["attention_mask"], rows, strict=True)
    ]
