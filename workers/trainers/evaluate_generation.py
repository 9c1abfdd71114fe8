"""Measure a language model on held-out conversations, beside its untuned base on the same rows."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import sacrebleu
import torch

from workers.engines.architectures import CAUSAL, UnsupportedModel
from workers.engines.loading import load_model, load_tokenizer, pick_device
from workers.trainers.conversations import (
    IGNORED,
    ConversationReader,
    Example,
    collate,
    read_conversations,
)
from workers.trainers.protocol import (
    BadMaterial,
    Cancelled,
    EvaluationRequest,
    EvaluationResult,
    Progress,
)
from workers.trainers.slices import by_length, by_turns
from workers.trainers.uncertainty import bootstrap, perplexity_interval

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
    Perplexity is measured by length of the question and by turns too.

    Raises:
        BadMaterial: rows or files cannot be used.
        Cancelled: `progress` said so.
    """
    rows = read_conversations(request.data_file)
    scored = rows[:PERPLEXITY_ROWS]
    written = rows[:GENERATED_ROWS]
    model, tokenizer = _load(request)
    total = (len(scored) + len(written)) * (1 if request.base is None else 2)
    untuned: _Measured | None = None
    with closing(ConversationReader(tokenizer)) as reader:
        if said := reader.examples(scored, MAX_LENGTH).words(MAX_LENGTH):
            progress.warn(said)
        run = _Run(model, tokenizer, reader, progress, total)
        found = run.measure(scored, written)
        if request.base is not None:
            with model.disable_adapter():
                untuned = run.measure(scored, written)
    return EvaluationResult(
        metrics=found.metrics,
        baseline=untuned.metrics if untuned is not None else {},
        baseline_name="untuned base" if untuned is not None else "",
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
                for row, output, before in list(
                    zip(written, found.outputs, (untuned or found).outputs, strict=True)
                )[:SAMPLES]
            ],
        },
        intervals={
            "metrics": found.intervals(),
            "baseline": untuned.intervals() if untuned is not None else {},
        },
        slices=_slices(scored, found, untuned),
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """`losses` are summed cross-entropies of the answers, in nats, and `tokens` their lengths, by
    row; a row whose prompt leaves no room has neither. `firsts` are the outputs' first lines."""

    losses: np.ndarray
    tokens: np.ndarray
    outputs: list[str]
    firsts: list[str]
    references: list[str]

    @property
    def metrics(self) -> dict[str, float]:
        everything = list(range(len(self.losses)))
        return {
            "perplexity": self.perplexity(everything),
            "chrf": _chrf(self.firsts, self.references),
        }

    def perplexity(self, rows: list[int]) -> float:
        return math.exp(min(self.losses[rows].sum() / self.tokens[rows].sum(), 50.0))

    def intervals(self) -> dict[str, dict[str, Any]]:
        metrics, read = self.metrics, self.tokens > 0

        def chrf(rows: np.ndarray) -> float:
            return _chrf([self.firsts[n] for n in rows], [self.references[n] for n in rows])

        return {
            "perplexity": perplexity_interval(
                metrics["perplexity"], self.losses[read], self.tokens[read]
            ),
            "chrf": bootstrap(metrics["chrf"], chrf, len(self.firsts)),
        }


def _chrf(written: list[str], references: list[str]) -> float:
    return float(sacrebleu.corpus_chrf(written, [references]).score)


def _slices(
    scored: list[dict[str, Any]], found: _Measured, untuned: _Measured | None
) -> list[dict[str, Any]]:
    """Perplexity on each part."""
    read = [index for index in range(len(scored)) if found.tokens[index] > 0]
    asked = [scored[index]["messages"][:-1] for index in read]
    parts = (
        *by_length(["\n".join(turn["content"] for turn in turns) for turns in asked]),
        *by_turns([sum(turn["role"] == "user" for turn in turns) for turns in asked]),
    )
    slices = []
    for part in parts:
        rows = [read[index] for index in part.rows]
        value = found.perplexity(rows)
        sure = perplexity_interval(value, found.losses[rows], found.tokens[rows])
        slices.append(
            {
                "by": part.by,
                "name": part.name,
                "metric": "perplexity",
                "value": value,
                "baseline": untuned.perplexity(rows) if untuned is not None else None,
                **sure,
            }
        )
    return slices


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

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        reader: ConversationReader,
        progress: Progress,
        total: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._reader = reader
        self._progress = progress
        self._total = total
        self._done = 0

    def measure(self, scored: list[dict[str, Any]], written: list[dict[str, Any]]) -> _Measured:
        """What the model makes of the rows: `scored` are read, `written` answered."""
        with torch.inference_mode():
            return self._measure(scored, written)

    def _measure(self, scored: list[dict[str, Any]], written: list[dict[str, Any]]) -> _Measured:
        losses, tokens = np.zeros(len(scored)), np.zeros(len(scored), dtype=np.int64)
        for first, batch in _batches(scored):
            found = {
                first + index: example
                for index, row in enumerate(batch)
                if (example := self._reader.example(row, MAX_LENGTH)) is not None
            }
            if found:
                rows = list(found)
                losses[rows], tokens[rows] = self._losses(list(found.values()))
            self._step(len(batch))
        outputs: list[str] = []
        for _, batch in _batches(written):
            outputs += self._write(batch)
            self._step(len(batch))
        return _Measured(
            losses=losses,
            tokens=tokens,
            outputs=outputs,
            firsts=[next(iter(output.strip().splitlines()), "") for output in outputs],
            references=[row["messages"][-1]["content"] for row in written],
        )

    def _step(self, rows: int) -> None:
        self._done += rows
        self._progress.metric(self._done, self._total, {})
        if self._progress.should_stop():
            raise Cancelled

    def _losses(self, examples: list[Example]) -> tuple[np.ndarray, np.ndarray]:
        """Summed cross-entropy over each answer's tokens, in nats, and how many there are."""
        batch = {
            name: tensor.to(self._model.device)
            for name, tensor in collate(examples, self._tokenizer.pad_token_id).items()
        }
        labels = batch.pop("labels")[:, 1:]
        logits = self._model(**batch).logits[:, :-1].float()
        each = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        return each.double().sum(dim=1).cpu().numpy(), (labels != IGNORED).sum(dim=1).cpu().numpy()

    def _write(self, rows: list[dict[str, Any]]) -> list[str]:
        """Greedy answers of at most 40 tokens."""
        prompts = [self._reader.prompt(row)[-MAX_LENGTH:] for row in rows]
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


def _batches(rows: list[dict[str, Any]]) -> list[tuple[int, list[dict[str, Any]]]]:
    """Batches with the number of their first row."""
    return [(start, rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
