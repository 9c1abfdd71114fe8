"""Measure a language model on held-out conversations, beside its untuned base on the same rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import peft
import sacrebleu
import torch

from workers.engines.architectures import CAUSAL, UnsupportedModel
from workers.engines.loading import load_model, load_tokenizer, pick_device
from workers.trainers.conversations import (
    IGNORED,
    collate,
    examples_of,
    prompt_of,
    read_conversations,
)
from workers.trainers.protocol import (
    BadMaterial,
    Cancelled,
    EvaluationRequest,
    EvaluationResult,
    Progress,
)

PERPLEXITY_ROWS = 48
GENERATED_ROWS = 16
NEW_TOKENS = 40
MAX_LENGTH = 512
BATCH = 16
SAMPLES = 8
SAMPLE_CHARACTERS = 600
ADAPTER = "tuned"


def evaluate(request: EvaluationRequest, progress: Progress) -> EvaluationResult:
    """Perplexity of the held-out answers, and chrF (Popović 2015) of what is written for them.

    Perplexity is exp of the mean cross-entropy over the answers' tokens of the first
    `PERPLEXITY_ROWS` rows; chrF compares greedy answers, their first line, with the authors' for
    the first `GENERATED_ROWS`. The baseline is the untuned base, measured alike in the same run.

    Raises:
        BadMaterial: rows or files cannot be used.
        Cancelled: `progress` said so.
    """
    rows = read_conversations(request.data_file)
    scored = rows[:PERPLEXITY_ROWS]
    written = rows[:GENERATED_ROWS]
    model, tokenizer = _load(request)
    total = (len(scored) + len(written)) * (1 if request.base is None else 2)
    run = _Run(model, tokenizer, progress, total)
    metrics, outputs = run.measure(scored, written)
    baseline, untuned = metrics, outputs
    if request.base is not None:
        with model.disable_adapter():
            baseline, untuned = run.measure(scored, written)
    return EvaluationResult(
        metrics=metrics,
        baseline=baseline if request.base is not None else {},
        baseline_name="untuned base" if request.base is not None else "",
        sample_size=len(scored),
        details={
            "perplexity_rows": len(scored),
            "generated_rows": len(written),
            "samples": [
                {
                    "input": row["messages"][-2]["content"][:SAMPLE_CHARACTERS],
                    "expected": row["messages"][-1]["content"][:SAMPLE_CHARACTERS],
                    "output": output[:SAMPLE_CHARACTERS],
                    "baseline": before[:SAMPLE_CHARACTERS],
                }
                for row, output, before in list(zip(written, outputs, untuned, strict=True))[
                    :SAMPLES
                ]
            ],
        },
    )


def _load(request: EvaluationRequest) -> tuple[Any, Any]:
    weights: Path = request.version if request.base is None else request.base
    try:
        model = load_model(weights, CAUSAL, device=pick_device(None))
    except UnsupportedModel as error:
        raise BadMaterial(f"The version cannot be evaluated. {error}") from error
    if request.base is not None:
        model = peft.PeftModel.from_pretrained(
            model, request.version, adapter_name=ADAPTER, local_files_only=True
        )
    return model.eval(), load_tokenizer(weights)


class _Run:
    """One model on the device; counts rows for the progress."""

    def __init__(self, model: Any, tokenizer: Any, progress: Progress, total: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._progress = progress
        self._total = total
        self._done = 0

    def measure(
        self, scored: list[dict[str, Any]], written: list[dict[str, Any]]
    ) -> tuple[dict[str, float], list[str]]:
        """The metrics, and the answer written for each of `written`."""
        with torch.inference_mode():
            return self._measure(scored, written)

    def _measure(
        self, scored: list[dict[str, Any]], written: list[dict[str, Any]]
    ) -> tuple[dict[str, float], list[str]]:
        loss, tokens = 0.0, 0
        for batch in _batches(scored):
            summed, counted = self._loss(batch)
            loss, tokens = loss + summed, tokens + counted
            self._step(len(batch))
        outputs: list[str] = []
        for batch in _batches(written):
            outputs += self._write(batch)
            self._step(len(batch))
        references = [row["messages"][-1]["content"] for row in written]
        firsts = [next(iter(output.strip().splitlines()), "") for output in outputs]
        metrics = {
            "perplexity": math.exp(min(loss / tokens, 50.0)),
            "chrf": float(sacrebleu.corpus_chrf(firsts, [references]).score),
        }
        return metrics, outputs

    def _step(self, rows: int) -> None:
        self._done += rows
        self._progress.metric(self._done, self._total, {})
        if self._progress.should_stop():
            raise Cancelled

    def _loss(self, rows: list[dict[str, Any]]) -> tuple[float, int]:
        """Summed cross-entropy over the answers' tokens, in nats, and how many there are."""
        examples = examples_of(self._tokenizer, rows, MAX_LENGTH)
        batch = {
            name: tensor.to(self._model.device)
            for name, tensor in collate(examples, self._tokenizer.pad_token_id).items()
        }
        labels = batch.pop("labels")[:, 1:]
        logits = self._model(**batch).logits[:, :-1].float()
        summed = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            labels.reshape(-1),
            ignore_index=IGNORED,
            reduction="sum",
        )
        return float(summed), int((labels != IGNORED).sum())

    def _write(self, rows: list[dict[str, Any]]) -> list[str]:
        """Greedy answers of at most 40 tokens."""
        prompts = [prompt_of(self._tokenizer, row)[-MAX_LENGTH:] for row in rows]
        longest = max(map(len, prompts))
        padding = self._tokenizer.pad_token_id
        tokens = torch.tensor([[padding] * (longest - len(each)) + each for each in prompts])
        mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
        output = self._model.generate(
            input_ids=tokens.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=padding,
        )
        answers: list[str] = self._tokenizer.batch_decode(
            output[:, longest:], skip_special_tokens=True
        )
        return answers


def _batches(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
