"""Python's own FAQ as a search task: the answers are documents, and the questions are queries.

A passage is relevant to a question if more than half of it belongs to the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import bm25s

from assay_demo.data.python_faq import answers

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Page:
    """The answers of one page. `places` has their start and end in `text`, by question."""

    name: str
    text: str
    places: dict[str, Span]


def pages(folder: Path) -> list[Page]:
    """Return the pages of the FAQ in `folder`."""
    result = []
    for name, pairs in answers(folder).items():
        text, places = "", {}
        for question, answer in pairs.items():
            places[question] = (len(text), len(text) + len(answer))
            text += f"{answer}\n\n"
        result.append(Page(name, text, places))
    return result


def relevant(spans: Sequence[Span], place: Span) -> set[int]:
    """Return the numbers of the passages (start, end) that are relevant to an answer."""
    begin, end = place
    return {
        number
        for number, (start, stop) in enumerate(spans)
        if 2 * (min(stop, end) - max(start, begin)) > stop - start
    }


def bm25(passages: Sequence[str], questions: Sequence[str], most: int = 10) -> list[list[int]]:
    """Return BM25's ranking of the passages for each question, without English stop words."""
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(passages), stopwords="en", show_progress=False), False, False)
    tokens = bm25s.tokenize(list(questions), stopwords="en", show_progress=False)
    ranked, _ = index.retrieve(tokens, k=most, show_progress=False)
    return [[int(each) for each in row] for row in ranked]


def recall_at_5(ranked: Sequence[int], relevant_passages: set[int]) -> float:
    """Return the share of relevant passages among the first five; 1 if all five are relevant."""
    return len(relevant_passages & set(ranked[:5])) / min(5, len(relevant_passages))
