"""The baseline: byte n-grams with Witten-Bell smoothing (Witten and Bell 1991), of nltk.lm.

It counts bytes, not tokens, so that its likelihood of any text is comparable to a model's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from nltk.lm import WittenBellInterpolated
from nltk.util import everygrams

ORDER = 5
NAME = f"byte {ORDER}-grams"
MAX_BYTES = 1_000_000
MAX_LINE_BYTES = 200
# Share of the uniform distribution, so that an unseen byte has a probability too.
_UNIFORM = 0.001


class NgramModel:
    """N-gram counts of the first megabyte of `texts`. `trained_on` is the number of texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.trained_on = 0
        texts_read: list[str] = []
        size = 0
        for text in texts:
            if size >= MAX_BYTES:
                break
            texts_read.append(_bytes(text)[: MAX_BYTES - size])
            size += len(texts_read[-1])
            self.trained_on += 1
        self._model = WittenBellInterpolated(ORDER)
        self._model.vocab.update(sorted(set("".join(texts_read))))
        # `fit` would look up every byte in the vocabulary, which has all bytes: twice the time.
        self._model.counts.update(everygrams(text, max_len=ORDER) for text in texts_read)

    def bits(self, prefix: str, continuation: str) -> float:
        """Return the information in `continuation`, in bits."""
        before, text = _bytes(prefix), _bytes(continuation)
        combined = before + text
        total = 0.0
        for at in range(len(before), len(combined)):
            context = tuple(combined[max(0, at - ORDER + 1) : at])
            score = self._model.score(combined[at], context)
            total -= math.log2((1 - _UNIFORM) * score + _UNIFORM / 256)
        return total

    def next_line(self, prefix: str) -> str:
        """Return the likeliest bytes, one after the other, up to the end of a non-blank line."""
        start = _bytes(prefix)
        line = ""
        while len(line) < MAX_LINE_BYTES and not (line.strip() and line.endswith("\n")):
            line += self._likeliest(start + line)
        return line.encode("latin-1").decode("utf-8", "replace")

    def _likeliest(self, text: str) -> str:
        for length in range(ORDER - 1, -1, -1):
            counts = self._model.context_counts(tuple(text[len(text) - length :]))
            if counts:
                return str(max(sorted(counts), key=counts.__getitem__))
        return "\n"


def _bytes(text: str) -> str:
    """Return a string with a character for each byte."""
    return text.encode("utf-8", "replace").decode("latin-1")
