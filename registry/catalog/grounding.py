"""Answers from a knowledge base: the query in a request, and the passages in its prompt.

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
    """Characters `start` to `end` of a document version, and their similarity to the query.

    `version` is the ID of the document version, `sha256` the digest of its file. `url` is a path on
    this server that shows the passage in its document. `score` is a cosine.
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
        """Return the citation of the passage for an answer."""
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
    """A request's query for passages from a knowledge base, at most `most` of them.

    `plan_with` returns the plan of the request with the passages in its prompt, without a system
    message if its second argument is true; the gateway searches with the access rights of the
    caller.
    """

    knowledge_base: str
    query: str
    most: int
    plan_with: Callable[[Sequence[Passage], bool], Plan]
