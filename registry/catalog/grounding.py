"""Answers from a knowledge base: what a request asks for, and the passages that it is given.

Loads neither Django nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

# The plan of `registry.catalog.endpoints`, which imports this module.
Plan = TypeVar("Plan")
MAX_PASSAGES = 20
DEFAULT_PASSAGES = 4


@dataclass(frozen=True, slots=True)
class Passage:
    """Characters `start` to `end` of a document version, and how close they are to the query.

    `version` is the id of the document version, `sha256` that of its file. `url` is a path of this
    server, where the passage stands in its document. `score` is a cosine.
    """

    number: int
    title: str
    filename: str
    document: int
    version: int
    version_number: int
    sha256: str
    classification: str
    start: int
    end: int
    text: str
    score: float
    url: str

    def citation(self) -> dict[str, Any]:
        """The passage as answers cite it."""
        return {
            "type": "file_citation",
            "index": self.number,
            "document": self.title,
            "document_id": self.document,
            "document_version": self.version_number,
            "document_version_id": self.version,
            "sha256": self.sha256,
            "start": self.start,
            "end": self.end,
            "quote": self.text,
            "url": self.url,
        }


@dataclass(frozen=True, slots=True)
class Grounding(Generic[Plan]):
    """The passages that a request asks to be answered from.

    `plan_with` returns the plan of the request with the passages in its prompt, without a system
    message if its second argument is true; the gateway finds the passages under the rights of
    whoever asks.
    """

    knowledge_base: str
    query: str
    most: int
    plan_with: Callable[[Sequence[Passage], bool], Plan]
