"""Train an encoder, all weights, into a cross-encoder that scores a document for a query."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from assay.plugins import run
from tasks.rerank import TASK, CrossEncoderHyperparameters
from tasks.rerank.score import reciprocal_rank

MIN_ROWS = 8
_HEAD = "ForSequenceClassification"


@dataclass(frozen=True, slots=True)
class Pair:
    """One query with one document; `group` is the row number of the query."""

    query: str
    document: str
    relevant: bool
    group: int


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train with binary cross-entropy on pairs (Nogueira and Cho 2019, arXiv:1901.04085); keep the
    epoch with the best MRR@10 on the validation queries.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(CrossEncoderHyperparameters, request.hyperparameters)
    rows, dropped = run.distinct_rows(read_ranked(request.train_file), "query")
    if len(rows) < MIN_ROWS:
        raise run.BadMaterial(f"There are {len(rows)} queries; at least {MIN_ROWS} are needed.")
    if dropped:
        progress.warn(f"{dropped} repeated queries are left out; each query counts once.")
    train_rows, validation_rows = run.hold_out(rows, settings.validation_fraction, settings.seed)
    train_pairs = pairs_of(train_rows, settings.negatives, settings.seed)
    validation_pairs = pairs_of(validation_rows, None, settings.seed)
    progress.log(
        f"{len(train_rows)} queries with {len(train_pairs)} documents to train on, and "
        f"{len(validation_rows)} with {len(validation_pairs)} to validate on."
    )
    transformers.set_seed(settings.seed)
    model, tokenizer = _model(request, settings.max_length)
    cut = _cut_queries([*train_pairs, *validation_pairs], tokenizer, settings.max_length)
    limit = f"{settings.max_length} tokens (max_length) of a query with a document"
    run.warn_of_cut(progress, cut, len(rows), limit)
    trainer = run.MonitoredTrainer(
        progress=progress,
        model=model,
        compute_loss_func=_loss,
        args=run.epoch_arguments(
            request, settings, len(train_pairs), best="mrr_10", label_names=["labels"]
        ),
        train_dataset=_encoded(train_pairs, tokenizer, settings.max_length),
        eval_dataset=_encoded(validation_pairs, tokenizer, settings.max_length),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=_metrics,
    )
    metrics, notes = run.run_trainer(trainer, tokenizer, request, progress)
    return run.TrainingResult(
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
        rows_cut=cut,
    )


def read_ranked(path: Any) -> list[dict[str, Any]]:
    """Return rows {"query", "documents", "relevant"}. Raises BadMaterial."""
    return run.read_rows(path, _is_ranked, '{"query": "…", "documents": ["…"], "relevant": [0]}')


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


def pairs_of(rows: Sequence[dict[str, Any]], negatives: int | None, seed: int) -> list[Pair]:
    """Return each query's relevant documents and `negatives` others, or all others if None."""
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


def _model(request: run.TrainingRequest, max_length: int) -> tuple[Any, Any]:
    encoders = [name.replace(_HEAD, "Model") for name in TASK.architectures]
    model = run.load_base(
        request.base,
        (*encoders, *TASK.architectures),
        trained_as=lambda name: name.removesuffix(_HEAD).removesuffix("Model") + _HEAD,
        num_labels=1,
    )
    run.check_length(model, max_length)
    tokenizer = run.load_tokenizer(request.base)
    tokenizer.model_max_length = max_length
    return model, tokenizer


def _cut_queries(pairs: Sequence[Pair], tokenizer: Any, max_length: int) -> int:
    """Return the number of queries that exceed `max_length` with one of their documents."""
    queries, documents = [pair.query for pair in pairs], [pair.document for pair in pairs]
    lengths = run.token_lengths(tokenizer, queries, documents)
    return len({each for each, n in zip(queries, lengths, strict=True) if n > max_length})


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
            [logit for logit, _ in scored],
            [index for index, (_, relevant) in enumerate(scored) if relevant],
        )
        for scored in groups.values()
    ]
    return {"mrr_10": float(np.mean(ranks))}


def _loss(outputs: Any, labels: torch.Tensor, **_: Any) -> torch.Tensor:
    """Return the binary cross-entropy of each pair's relevance."""
    loss: torch.Tensor = torch.nn.functional.binary_cross_entropy_with_logits(
        outputs.logits[:, 0].float(), labels[:, 0]
    )
    return loss
