"""The baseline: n-grams in all keys, with Witten-Bell smoothing (Witten and Bell 1991)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from assay_tasks_extra.text_to_audio.notation import BLOCK, VOICES, Piece

ORDER = 5
NAME = f"{ORDER}-grams of notes"
# Semitones by which each piece is transposed; more keys need more memory.
MOVES = range(-5, 7)
MAX_TOKENS = 300_000

Context = tuple[int, ...]


class NgramModel:
    """Counts of tokens after a voice and up to four earlier tokens, the last of the same voice.

    `trained_on` is the number of counted pieces: the first ones, up to about `MAX_TOKENS` tokens.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.trained_on = 0
        self._counts: defaultdict[Context, int] = defaultdict(int)
        self._totals: defaultdict[Context, list[int]] = defaultdict(lambda: [0, 0])
        size = 0
        for piece in pieces:
            if size >= MAX_TOKENS:
                break
            self.trained_on += 1
            size += len(piece.steps) * VOICES
            for by in MOVES:
                for context, token in _windows(piece, by):
                    self._add(context, token)

    def bits(self, piece: Piece) -> float:
        """Return the information in a piece's steps, in bits."""
        return -sum(math.log2(self._share(*window)) for window in _windows(piece, 0))

    def _add(self, context: Context, token: int) -> None:
        for length in range(1, len(context) + 1):
            ngram = (*context[:length], token)
            total = self._totals[context[:length]]
            total[0] += 1
            total[1] += ngram not in self._counts
            self._counts[ngram] += 1

    def _share(self, context: Context, token: int) -> float:
        share = 1 / BLOCK
        for length in range(1, len(context) + 1):
            if (total := self._totals.get(context[:length])) is None:
                break
            count, kinds = total
            occurrences = self._counts.get((*context[:length], token), 0)
            share = (occurrences + kinds * share) / (count + kinds)
        return share


def _windows(piece: Piece, by: int) -> Iterator[tuple[Context, int]]:
    """Yield each token with its context: the voice, and earlier tokens, the nearest first."""
    row = [value + by if value >= 0 else value for step in piece.steps for value in step]
    for at, token in enumerate(row):
        yield (at % VOICES, *reversed(row[max(0, at - ORDER + 1) : at])), token
