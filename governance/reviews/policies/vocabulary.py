"""Terms of a review policy: answers and checks of the context whose objects are reviewed.

Governance does not know models. The context that opens reviews registers its questions with all
their possible answers, and its machine checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Answer = str | bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Questions with their answers and the answers' labels, and checks with their labels."""

    questions: Mapping[str, Mapping[Answer, str]] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)


_known = Vocabulary()


def vocabulary_register(vocabulary: Vocabulary) -> None:
    """Register the terms. The context calls this once, when its application is ready."""
    global _known
    _known = vocabulary


def registered_vocabulary() -> Vocabulary:
    """Return the registered terms; empty until a context registers some."""
    return _known
