"""Questions and answers from Python's own FAQ, as packaged by Debian (PSF license).

A row for reranking is one question; its candidates are answers of the same page, in a pseudorandom
order. No search ranked them before, so the data favors no method.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

CANDIDATES = 20
ANSWER_CHARACTERS = 600
MIN_ANSWER_CHARACTERS = 40


@dataclass(slots=True)
class _Section:
    heading: str = ""
    text: list[str] = field(default_factory=list)


class _Sections(HTMLParser):
    """Collects each section's heading and its text, without the text of its subsections."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[_Section] = []
        self._open: list[_Section] = []
        self._in_heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self._open.append(_Section())
            self.found.append(self._open[-1])
        elif tag in ("h1", "h2", "h3"):
            self._in_heading = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "section" and self._open:
            self._open.pop()
        elif tag in ("h1", "h2", "h3"):
            self._in_heading = False

    def handle_data(self, data: str) -> None:
        if self._open and self._in_heading:
            self._open[-1].heading += data
        elif self._open:
            self._open[-1].text.append(data)


def answers(folder: Path) -> dict[str, dict[str, str]]:
    """Return the whole answer to each question of each page in `folder`, by page and question."""
    result: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*.html")):
        parser = _Sections()
        parser.feed(path.read_text(encoding="utf-8"))
        pairs = dict(_pair(section) for section in parser.found)
        result[path.stem] = {
            question: answer
            for question, answer in pairs.items()
            if question.endswith("?") and len(answer) >= MIN_ANSWER_CHARACTERS
        }
    return {page: pairs for page, pairs in result.items() if len(pairs) >= 2}


def questions(folder: Path) -> list[dict[str, Any]]:
    """Return rows {"query", "documents", "relevant"} of all pages in `folder`, shuffled."""
    rows: list[dict[str, Any]] = []
    for pairs in answers(folder).values():
        short = {question: answer[:ANSWER_CHARACTERS] for question, answer in pairs.items()}
        rows += [_row(question, short) for question in short]
    return sorted(rows, key=lambda row: _shuffled(row["query"]))


def _pair(section: _Section) -> tuple[str, str]:
    question = " ".join(section.heading.replace("¶", " ").split())
    answer = " ".join("".join(section.text).split())
    return question, answer


def _row(question: str, answers: dict[str, str]) -> dict[str, Any]:
    others = [each for each in answers if each != question]
    others.sort(key=lambda other: _shuffled(f"{question}\n{other}"))
    candidates = sorted(
        [question, *others[: CANDIDATES - 1]], key=lambda each: _shuffled(f"{each}\n")
    )
    return {
        "query": question,
        "documents": [answers[each] for each in candidates],
        "relevant": [candidates.index(question)],
    }


def _shuffled(text: str) -> bytes:
    """Return a key that sorts texts into a fixed pseudorandom order."""
    return hashlib.sha256(text.encode()).digest()
