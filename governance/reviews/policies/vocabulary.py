"""Terms of a review policy: answers and checks of the context whose objects are reviewed.

Governance knows no model. Whoever opens reviews says which questions are answered beforehand, with
every answer that there is, and which checks a machine can make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Answer = str | bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`questions` maps each to its answers, and those to words; `checks` maps each to words."""

    questions: Mapping[str, Mapping[Answer, str]] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)


_known = Vocabulary()


def vocabulary_register(vocabulary: Vocabulary) -> None:
    """Called once, when the application of that context is ready."""
    global _known
    _known = vocabulary


def vocabulary_known() -> Vocabulary:
    """Return the registered terms; empty until a context registers some."""
    return _known
