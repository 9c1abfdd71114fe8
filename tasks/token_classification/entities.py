"""Join tokens into passages by their scores, as the pipeline of transformers does.

Labels are `B-X` and `I-X` (begin and continue a passage), or just `X`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tasks.token_classification.schema import Entity, Strategy

OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class Judged:
    """The tokens of a text: start, end, word number, and scores [tokens, labels]."""

    starts: Sequence[int]
    ends: Sequence[int]
    words: Sequence[int]
    scores: np.ndarray


@dataclass(frozen=True, slots=True)
class _Piece:
    label: str
    score: float
    start: int
    end: int


def entities(
    text: str,
    judged: Judged,
    labels: Sequence[str],
    *,
    strategy: Strategy,
    ignored: Sequence[str],
) -> list[Entity]:
    """Return passages, or tokens for the strategy `none`, without ignored labels."""
    if strategy == "none":
        return [
            Entity(
                entity=labels[best],
                index=number + 1,
                score=float(judged.scores[number, best]),
                word=text[judged.starts[number] : judged.ends[number]],
                start=judged.starts[number],
                end=judged.ends[number],
            )
            for number, best in enumerate(judged.scores.argmax(axis=1))
            if labels[best] not in ignored
        ]
    pieces = _tokens(judged, labels) if strategy == "simple" else _words(judged, labels, strategy)
    return [
        Entity(entity_group=group, score=score, word=text[start:end], start=start, end=end)
        for group, score, start, end in _joined(pieces)
        if group not in ignored
    ]


def tag(label: str) -> tuple[bool, str]:
    """Return whether a label begins a passage, and the passage's label."""
    if label.startswith(("B-", "I-")):
        return label[0] == "B", label[2:]
    return False, label


def _tokens(judged: Judged, labels: Sequence[str]) -> list[_Piece]:
    best = judged.scores.argmax(axis=1)
    return [
        _Piece(labels[label], float(judged.scores[at, label]), judged.starts[at], judged.ends[at])
        for at, label in enumerate(best)
    ]


def _words(judged: Judged, labels: Sequence[str], strategy: Strategy) -> list[_Piece]:
    """Give all tokens of a word one label: by its first, average, or most certain token."""
    pieces: list[_Piece] = []
    for _, group in groupby(range(len(judged.words)), key=lambda at: judged.words[at]):
        places = list(group)
        scores = judged.scores[places]
        if strategy == "first":
            word_scores = scores[0]
        elif strategy == "average":
            word_scores = scores.mean(axis=0)
        else:
            word_scores = scores[scores.max(axis=1).argmax()]
        label = int(word_scores.argmax())
        pieces.append(
            _Piece(
                labels[label],
                float(word_scores[label]),
                judged.starts[places[0]],
                judged.ends[places[-1]],
            )
        )
    return pieces


def _joined(pieces: Sequence[_Piece]) -> list[tuple[str, float, int, int]]:
    """Join neighbors with the same label; a piece that begins a passage starts a new group."""
    groups: list[tuple[str, list[_Piece]]] = []
    for piece in pieces:
        begins, label = tag(piece.label)
        if groups and groups[-1][0] == label and not begins:
            groups[-1][1].append(piece)
        else:
            groups.append((label, [piece]))
    return [
        (label, sum(each.score for each in group) / len(group), group[0].start, group[-1].end)
        for label, group in groups
    ]
