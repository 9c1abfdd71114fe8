"""Marks of passages in an answer that arrives in pieces."""

from __future__ import annotations

import pytest

from tasks.text_generation.grounded import Marks


@pytest.mark.parametrize("piece", [1_000_010, 1_000, 7])
def test_a_long_run_of_spaces_stays_as_it_is_however_it_arrives(piece: int) -> None:
    """A pattern that tried each space again would take longer than a test may."""
    text = f"{' ' * 1_000_000}[1]. Not [9."
    marks = Marks(frozenset({1}))
    shown = "".join(marks.push(text[start : start + piece]) for start in range(0, len(text), piece))
    assert shown + marks.flush() == text
    assert marks.cited == [(1, 1_000_000, 1_000_003)]


def test_a_mark_is_held_with_its_spaces_until_it_is_complete() -> None:
    marks = Marks(frozenset({1}))
    assert marks.push("Thirty days [1] [1, ") == "Thirty days [1]"
    assert marks.push("7]. Or not  [") == " [1]. Or not"
    assert marks.push("7]") == ""
    assert marks.push(", [x]") == ", [x]"
