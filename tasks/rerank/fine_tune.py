"""Train an encoder, all weights, into a cross-encoder: does this document answer this query?"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from tasks.rerank import TASK, CrossEncoderHyperparameters
from tasks.rerank.score import reciprocal_rank
from workers.engines.architectures import UnsupportedModel, architecture_of
from workers.engines.loading import check_shards, load_tokenizer
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.training import (
    Reporter,
    arguments,
    fast_bfloat16,
    parse_settings,
    read_rows,
    run_trainer,
)

MIN_ROWS = 8
_HEAD = "ForSequenceClassification"


@dataclass(frozen=True, slots=True)
class Pair:
    """One query with one document; `group` is the number of the query's row."""

    query: str
    document: str
    relevant: bool
    group: int


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train with binary cross-entropy on pairs (Nogueira and Cho 2019, arXiv:1901.04085); the epoch
    with the best MRR@10 on the validation queries is kept.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Cancelled: `progress` said so.
    """
    settings = parse_settings(CrossEncoderHyperparameters, request.hyperparameters)
    rows, dropped = distinct(read_ranked(request.train_file))
    if len(rows) < MIN_ROWS:
        raise BadMaterial(f"There are {len(rows)} queries; at least {MIN_ROWS} are needed.")
    if dropped:
        progress.warn(f"{dropped} repeated queries are left out; each query counts once.")
    train_rows, validation_rows = _split(rows, settings.validation_fraction, settings.seed)
    train_pairs = pairs_of(train_rows, settings.negatives, settings.seed)
    validation_pairs = pairs_of(validation_rows, None, settings.seed)
    progress.log(
        f"{len(train_rows)} queries with {len(train_pairs)} documents to train on, and "
        f"{len(validation_rows)} with {len(validation_pairs)} to validate on."
    )
    transformers.set_seed(settings.seed)
    model, tokenizer = _model(request, settings.max_length)
    reporter = Reporter(progress)
    trainer = _PairTrainer(
        reporter=reporter,
        model=model,
        args=_arguments(request, settings, len(train_pairs)),
        train_dataset=_encoded(train_pairs, tokenizer, settings.max_length),
        eval_dataset=_encoded(validation_pairs, tokenizer, settings.max_length),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=_metrics,
        callbacks=[reporter],
    )
    metrics, notes = run_trainer(trainer, tokenizer, request, progress)
    return TrainingResult(
        metrics={
            "validation_mrr_10": metrics["eval_mrr_10"],
            "validation_loss": metrics["eval_loss"],
        },
        parameters={
            **settings.model_dump(),
            "train_rows": len(train_rows),
            "validation_rows": len(validation_rows),
            "train_pairs": len(train_pairs),
            "steps": trainer.state.max_steps,
            "rows": len(rows) + dropped,
            "rows_left_out": dropped,
        },
        notes=notes,
    )


def read_ranked(path: Any) -> list[dict[str, Any]]:
    """Return rows {"query", "documents", "relevant"}. Raises BadMaterial."""
    return read_rows(path, _is_ranked, '{"query": "…", "documents": ["…"], "relevant": [0]}')


def _is_ranked(row: dict[str, Any]) -> bool:
    documents, relevant = row.get("documents"), row.get("relevant")
    return (
        isinstance(row.get("query"), str)
        and isinstance(documents, list)
        and isinstance(relevant, list)
        and bool(relevant)
        and all(isinstance(each, str) for each in documents)
        and all(type(each) is int and 0 <= each < len(documents) for each in relevant)
    )


def distinct(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Return the first row of each query, and how many rows were left out."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["query"], row)
    return list(first.values()), len(rows) - len(first)


def pairs_of(rows: Sequence[dict[str, Any]], negatives: int | None, seed: int) -> list[Pair]:
    """Return every relevant document, and for each query `negatives` others; all when None."""
    draw = random.Random(seed)
    pairs: list[Pair] = []
    for group, row in enumerate(rows):
        relevant = set(row["relevant"])
        others = [index for index in range(len(row["documents"])) if index not in relevant]
        if negatives is not None and len(others) > negatives:
            others = draw.sample(others, negatives)
        pairs += [
            Pair(row["query"], row["documents"][index], index in relevant, group)
            for index in sorted([*relevant, *others])
        ]
    return pairs


def _split(
    rows: list[dict[str, Any]], fraction: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    shuffled = random.Random(seed).sample(rows, len(rows))
    size = max(1, round(len(rows) * fraction))
    return shuffled[size:], shuffled[:size]


def _model(request: TrainingRequest, max_length: int) -> tuple[Any, Any]:
    encoders = [name.replace(_HEAD, "Model") for name in TASK.architectures]
    try:
        architecture = architecture_of(request.base, (*encoders, *TASK.architectures))
        check_shards(request.base)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained into a reranker. {error}") from error
    name = architecture if architecture.endswith(_HEAD) else architecture[: -len("Model")] + _HEAD
    tokenizer = load_tokenizer(request.base)
    model = getattr(transformers, name).from_pretrained(
        request.base,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        num_labels=1,
    )
    if max_length > model.config.max_position_embeddings:
        raise BadMaterial(
            f"max_length is {max_length}; this base reads {model.config.max_position_embeddings}."
        )
    tokenizer.model_max_length = max_length
    return model, tokenizer


def _encoded(pairs: Sequence[Pair], tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    tokens = tokenizer(
        [pair.query for pair in pairs],
        [pair.document for pair in pairs],
        truncation=True,
        max_length=max_length,
    )
    return [
        {
            **{name: values[number] for name, values in tokens.items()},
            "labels": [float(pair.relevant), float(pair.group)],
        }
        for number, pair in enumerate(pairs)
    ]


def _metrics(prediction: Any) -> dict[str, float]:
    """Return MRR@10 over the queries; labels hold relevance and the query's number."""
    groups: defaultdict[int, list[tuple[float, bool]]] = defaultdict(list)
    for logit, (relevant, group) in zip(
        np.asarray(prediction.predictions).reshape(-1), prediction.label_ids, strict=True
    ):
        groups[int(group)].append((float(logit), bool(relevant)))
    ranks = [
        reciprocal_rank(
            [logit for logit, _ in found],
            [index for index, (_, relevant) in enumerate(found) if relevant],
        )
        for found in groups.values()
    ]
    return {"mrr_10": float(np.mean(ranks))}


def _arguments(
    request: TrainingRequest, settings: CrossEncoderHyperparameters, rows: int
) -> transformers.TrainingArguments:
    steps = -(-rows // settings.batch_size) * settings.epochs
    return arguments(
        request,
        settings.seed,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=32,
        weight_decay=settings.weight_decay,
        warmup_steps=round(steps * settings.warmup_ratio),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="mrr_10",
        greater_is_better=True,
        label_names=["labels"],
        bf16=fast_bfloat16(),
    )


class _PairTrainer(transformers.Trainer):  # type: ignore[misc]
    """Binary cross-entropy, and a question about stopping before each forward pass."""

    def __init__(self, *, reporter: Reporter, **rest: Any) -> None:
        super().__init__(**rest)
        self._reporter = reporter

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **rest: Any
    ) -> Any:
        self._reporter.check()
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            outputs.logits[:, 0].float(), labels[:, 0]
        )
        inputs["labels"] = labels
        return (loss, outputs) if return_outputs else loss
