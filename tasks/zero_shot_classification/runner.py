"""Serve zero-shot classification, by an entailment model or by a sentence encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import declare, run
from assay.plugins.run import Item
from tasks.embeddings.runner import EmbeddingsRunner
from tasks.zero_shot_classification.schema import ZeroShotInputs, ZeroShotOptions

MAX_TOKENS = 8_192
# Scale of similarities, which lie close together, before the softmax. 20 is the scale of
# sentence-transformers' ranking losses.
SHARPNESS = 20.0

_Settings = dict[str, Any]


class ZeroShotRunner:
    """Returns one [{label, score}, …] for each text, best first.

    A classifier with the label `entailment` judges each label's sentence against the text (Yin, Hay
    and Roth 2019, arXiv:1909.00161). An encoder compares their vectors: faster, but less exact.
    """

    limits = run.BatchLimits(items=32, size=MAX_TOKENS)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        entails = run.architecture_of(folder, architectures).endswith("ForSequenceClassification")
        settings: _Settings = {"architectures": architectures, "device": device, "dtype": dtype}
        self._judge: _Entailment | _Similarity = (
            _Entailment(folder, settings) if entails else _Similarity(folder, settings)
        )

    def prepare(
        self, request_id: str, inputs: ZeroShotInputs, options: ZeroShotOptions
    ) -> run.Prepared:
        labels = inputs.candidate_labels
        hypotheses = [options.hypothesis_template.replace("{}", label) for label in labels]
        reading, rows = self._judge.read(request_id, inputs.text, hypotheses, options.truncate)
        usage = self._judge.texts.usage(reading)
        # The text counts as one input for any number of labels.
        usage["cut_inputs"] = min(1, usage["cut_inputs"])
        item = Item((rows, labels, options.multi_label), size=usage["units"])
        return run.Prepared(items=[item], **usage)

    def collate(self, items: Sequence[Item]) -> list[Item]:
        return list(items)

    def run(self, batch: list[Item]) -> list[Tensor]:
        """Return the scores of each item's labels."""
        rows = [row for item_rows, _, _ in _payloads(batch) for row in item_rows]
        output = torch.cat([self._judge.compute(part) for part in _chunks(rows)])
        counts = [len(item_rows) for item_rows, _, _ in _payloads(batch)]
        return [
            self._judge.scores(part, multi_label=multi)
            for part, (_, _, multi) in zip(output.split(counts), _payloads(batch), strict=True)
        ]

    def split(self, output: list[Tensor], items: Sequence[Item]) -> list[list[declare.Label]]:
        results: list[list[declare.Label]] = []
        for scores, (_, labels, _) in zip(output, _payloads(items), strict=True):
            values = scores.tolist()
            order = sorted(range(len(labels)), key=lambda at: (-values[at], at))
            results.append([declare.Label(label=labels[at], score=values[at]) for at in order])
        return results

    def cancel(self, request_id: str) -> None:
        self._judge.texts.cancel(request_id)

    def close(self) -> None:
        self._judge.texts.close()


class _Entailment:
    """Probability that the text entails each sentence."""

    def __init__(self, folder: Path, settings: _Settings) -> None:
        self.texts = run.TextRunner(folder, **settings)
        names = [name.lower() for name in run.label_names(self.texts.model)]
        entails = [at for at, name in enumerate(names) if name.startswith("entail")]
        if len(entails) != 1:
            self.texts.close()
            raise run.UnsupportedModel(
                f"The classifier's labels are {', '.join(names[:10])}; zero-shot classification "
                "needs a label called entailment."
            )
        self._entails = entails[0]
        against = [at for at, name in enumerate(names) if name.startswith(("contra", "not_entail"))]
        self._against = against[0] if against else None
        self._kinds = int(getattr(self.texts.model.config, "type_vocab_size", 1))

    def read(
        self, request_id: str, text: str, hypotheses: list[str], truncate: declare.Truncate
    ) -> tuple[run.TextReading, list[Any]]:
        pairs = [(text, hypothesis) for hypothesis in hypotheses]
        reading = self.texts.read_pairs(request_id, pairs, truncate)
        return reading, [_Pair(*each) for each in zip(reading.tokens, reading.kinds, strict=True)]

    def scores(self, logits: Tensor, *, multi_label: bool) -> Tensor:
        entails = logits[:, self._entails]
        if not multi_label:
            return entails.softmax(dim=0)
        if self._against is None:
            return logits.softmax(dim=1)[:, self._entails]
        return torch.stack([logits[:, self._against], entails], dim=1).softmax(dim=1)[:, 1]

    def compute(self, rows: list[Any]) -> Tensor:
        batch = self.texts.collate([Item(row.tokens, size=len(row)) for row in rows])
        if self._kinds > 1:
            longest = batch["input_ids"].shape[1]
            kinds = [row.kinds + [0] * (longest - len(row)) for row in rows]
            batch["token_type_ids"] = torch.tensor(kinds).to(self.texts.model.device)
        logits: Tensor = self.texts.model(**batch).logits.float().cpu()
        return logits


class _Pair:
    """Tokens of a text with a sentence, and their kinds."""

    __slots__ = ("kinds", "tokens")

    def __init__(self, tokens: list[int], kinds: list[int]) -> None:
        self.tokens, self.kinds = tokens, kinds

    def __len__(self) -> int:
        return len(self.tokens)


class _Similarity:
    """Cosine of the vectors of the text and of each sentence."""

    def __init__(self, folder: Path, settings: _Settings) -> None:
        self.texts = EmbeddingsRunner(folder, **settings)

    def read(
        self, request_id: str, text: str, hypotheses: list[str], truncate: declare.Truncate
    ) -> tuple[run.TextReading, list[Any]]:
        reading = self.texts.read(request_id, [text, *hypotheses], truncate)
        return reading, reading.tokens

    def scores(self, vectors: Tensor, *, multi_label: bool) -> Tensor:
        cosines = vectors[1:] @ vectors[0]
        return cosines.clamp(0, 1) if multi_label else (SHARPNESS * cosines).softmax(dim=0)

    def compute(self, rows: list[Any]) -> Tensor:
        batch = self.texts.collate([Item(row, size=len(row)) for row in rows])
        vectors: Tensor = self.texts.run(batch).float().cpu()
        return vectors


def _payloads(items: Sequence[Item]) -> Iterator[tuple[list[Any], list[str], bool]]:
    for item in items:
        yield item.payload


def _chunks(rows: list[Any]) -> Iterator[list[Any]]:
    """Yield neighboring rows, as many as fit into one forward pass."""
    most = max(1, MAX_TOKENS // max(map(len, rows)))
    for start in range(0, len(rows), most):
        yield rows[start : start + most]
