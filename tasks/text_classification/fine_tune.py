"""Tune an encoder, all weights, into a text classifier."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
import transformers
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split

from tasks.text_classification import TASK, FineTuneHyperparameters
from workers.engines.architectures import UnsupportedModel, architecture_of
from workers.engines.loading import check_shards, load_tokenizer
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.training import (
    Reporter,
    arguments,
    fast_bfloat16,
    finish_config,
    parse_settings,
    read_rows,
    resume_point,
)

MAX_LABELS = 1_000
# The head starts from random numbers and the encoder from a trained model: at one rate, the head is
# hardly moved by the time that the encoder is (macro-F1 on the validation split 0.34 against 0.47).
HEAD_FACTOR = 10
HEAD_NAMES = ("classifier", "pooler", "pre_classifier")
MIN_ROWS_PER_LABEL = 4


# The classifier of each encoder that fine-tuning can start from.
_CLASSIFIERS = {
    "BertModel": "BertForSequenceClassification",
    "DistilBertModel": "DistilBertForSequenceClassification",
    "MPNetModel": "MPNetForSequenceClassification",
    "RobertaModel": "RobertaForSequenceClassification",
    "XLMRobertaModel": "XLMRobertaForSequenceClassification",
}


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Fine-tune; the epoch with the best macro-F1 on the validation split is what is kept.

    Raises:
        BadMaterial: Rows, settings or base cannot be used.
        Cancelled: `progress` said so.
    """
    settings = parse_settings(FineTuneHyperparameters, request.hyperparameters)
    seed = settings.seed
    rows, dropped = distinct(read_labelled(request.train_file))
    labels = sorted({row["label"] for row in rows})
    train_rows, validation_rows = _split(rows, labels, settings.validation_fraction, seed)
    progress.log(
        f"{len(train_rows)} rows to train on and {len(validation_rows)} to validate on, "
        f"labels {', '.join(labels)}."
    )
    if dropped:
        progress.warn(f"{dropped} repeated texts are left out; each text counts once.")
    transformers.set_seed(seed)
    model, tokenizer = _model(request, labels, settings.max_length)
    shortened, longest = _too_long(rows, tokenizer, settings.max_length)
    if shortened:
        progress.warn(
            f"{shortened} of {len(rows)} texts are longer than max_length {settings.max_length}; "
            f"only their beginning is read. The longest has {longest} tokens."
        )
    reporter = Reporter(progress)
    trainer = _WeightedTrainer(
        head_rate=HEAD_FACTOR * settings.learning_rate,
        weights=_weights(train_rows, labels) if settings.class_weights else None,
        reporter=reporter,
        model=model,
        args=_arguments(request, settings, seed, len(train_rows)),
        train_dataset=_encoded(train_rows, tokenizer, labels, settings.max_length),
        eval_dataset=_encoded(validation_rows, tokenizer, labels, settings.max_length),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=_metrics,
        callbacks=[reporter],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=resume_point(request, progress))
    metrics = trainer.evaluate()
    request.output.mkdir(parents=True, exist_ok=True)
    trainer.model.save_pretrained(request.output)
    tokenizer.save_pretrained(request.output)
    finish_config(request.output)
    best = trainer.state.best_global_step
    return TrainingResult(
        metrics={
            "validation_accuracy": metrics["eval_accuracy"],
            "validation_macro_f1": metrics["eval_macro_f1"],
            "validation_loss": metrics["eval_loss"],
        },
        parameters={
            **settings.model_dump(),
            "train_rows": len(train_rows),
            "validation_rows": len(validation_rows),
            "steps": trainer.state.max_steps,
            "rows": len(rows) + dropped,
            "rows_left_out": dropped,
            "rows_shortened": shortened,
        },
        notes=f"The weights of step {best} were the best on the validation split."
        if best
        else "The weights of the last step.",
    )


def read_labelled(path: Any) -> list[dict[str, Any]]:
    """Rows {"text", "label"}. Raises BadMaterial."""
    return read_rows(
        path,
        lambda row: all(isinstance(row.get(key), str) and row[key] for key in ("text", "label")),
        '{"text": "…", "label": "…"}',
    )


def distinct(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Each text once, so that none stands on both sides of a split; and how many were left out."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["text"], row)
    return list(first.values()), len(rows) - len(first)


def _split(
    rows: list[dict[str, Any]], labels: list[str], fraction: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Stratified by label."""
    counts = Counter(row["label"] for row in rows)
    if not 2 <= len(labels) <= MAX_LABELS:
        raise BadMaterial(f"There are {len(labels)} labels; a classifier has 2 to {MAX_LABELS}.")
    rare = [label for label in labels if counts[label] < MIN_ROWS_PER_LABEL]
    if rare:
        raise BadMaterial(
            f"The label {rare[0]!r} has {counts[rare[0]]} rows; each needs {MIN_ROWS_PER_LABEL}."
        )
    size = max(round(len(rows) * fraction), len(labels))
    train, validation = train_test_split(
        rows, test_size=size, random_state=seed, stratify=[row["label"] for row in rows]
    )
    return train, validation


def _model(request: TrainingRequest, labels: list[str], max_length: int) -> tuple[Any, Any]:
    try:
        architecture = architecture_of(request.base, (*_CLASSIFIERS, *TASK.architectures))
        check_shards(request.base)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be tuned into a classifier. {error}") from error
    name = _CLASSIFIERS.get(architecture, architecture)
    tokenizer = load_tokenizer(request.base)
    model = getattr(transformers, name).from_pretrained(
        request.base,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    if max_length > model.config.max_position_embeddings:
        raise BadMaterial(
            f"max_length is {max_length}; this base reads {model.config.max_position_embeddings}."
        )
    tokenizer.model_max_length = max_length
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


def _too_long(rows: list[dict[str, Any]], tokenizer: Any, max_length: int) -> tuple[int, int]:
    """Count the texts over `max_length` tokens, and the tokens of the longest one."""
    texts = [row["text"] for row in rows]
    cut = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    # Only those that fill the room may be longer.
    full = [text for text, ids in zip(texts, cut, strict=True) if len(ids) >= max_length]
    if not full:
        return 0, max(map(len, cut))
    lengths = [len(ids) for ids in tokenizer(full, truncation=False, verbose=False)["input_ids"]]
    return sum(length > max_length for length in lengths), max(lengths)


def _weights(rows: list[dict[str, Any]], labels: list[str]) -> torch.Tensor:
    """Inverse to the square root of each label's frequency: a rare label counts for more, but a few
    of its rows do not drown all others.
    """
    counts = Counter(row["label"] for row in rows)
    return torch.tensor([(len(rows) / (len(labels) * counts[label])) ** 0.5 for label in labels])


def _metrics(prediction: Any) -> dict[str, float]:
    guesses, truth = np.argmax(prediction.predictions, axis=-1), prediction.label_ids
    return {
        "accuracy": float(accuracy_score(truth, guesses)),
        "macro_f1": float(f1_score(truth, guesses, average="macro", zero_division=0)),
    }


def _arguments(
    request: TrainingRequest, settings: FineTuneHyperparameters, seed: int, rows: int
) -> transformers.TrainingArguments:
    steps = -(-rows // settings.batch_size) * settings.epochs
    return arguments(
        request,
        seed,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=32,
        weight_decay=settings.weight_decay,
        warmup_steps=round(steps * settings.warmup_ratio),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="macro_f1",
        greater_is_better=True,
        bf16=fast_bfloat16(),
    )


class _WeightedTrainer(transformers.Trainer):  # type: ignore[misc]
    """Cross-entropy weighted by label, a rate of its own for the head, and a question about
    stopping before each forward pass.
    """

    def __init__(
        self, *, head_rate: float, weights: torch.Tensor | None, reporter: Reporter, **rest: Any
    ) -> None:
        super().__init__(**rest)
        self._head_rate, self._weights, self._reporter = head_rate, weights, reporter

    def create_optimizer(self, *given: Any, **rest: Any) -> Any:
        head: list[torch.nn.Parameter] = []
        encoder: list[torch.nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            is_head = any(part in HEAD_NAMES for part in name.split("."))
            (head if is_head else encoder).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": encoder}, {"params": head, "lr": self._head_rate}],
            lr=self.args.learning_rate,
            weight_decay=self.args.weight_decay,
        )
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **rest: Any
    ) -> Any:
        self._reporter.check()
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        weights = None if self._weights is None else self._weights.to(outputs.logits.device)
        loss = torch.nn.functional.cross_entropy(outputs.logits, labels, weight=weights)
        inputs["labels"] = labels
        return (loss, outputs) if return_outputs else loss
