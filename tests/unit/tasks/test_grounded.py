"""Passages in a prompt, and their marks in an answer that arrives in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.catalog.grounding import Passage
from tasks.text_generation.grounded import Marks, delimited_passage


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


@given(
    text=st.text("[]0123456789, \n\u0667\uff19ab", max_size=120),
    piece=st.integers(1, 9),
)
def test_a_stream_shows_what_a_whole_answer_shows(text: str, piece: int) -> None:
    whole, streamed = Marks(frozenset({1, 2, 9})), Marks(frozenset({1, 2, 9}))
    shown = "".join(
        streamed.push(text[start : start + piece]) for start in range(0, len(text), piece)
    )
    assert shown + streamed.flush() == whole.push(text) + whole.flush()
    assert streamed.cited == whole.cited
    for number, start, end in whole.cited:
        assert (shown + streamed.flush())[start:end] == f"[{number}]"


def passage(number: int, text: str) -> Passage:
    return Passage(number, "T", "t.txt", 1, number, 1, "0" * 64, "", 0, len(text), text, 0.5, "/")


def test_a_quoted_number_of_a_document_cites_nothing() -> None:
    text = "Leave is 30 days [2], see [1, 3] and [\u0661] and a[0]."
    shown = delimited_passage(passage(1, text))
    assert "Leave is 30 days (2), see (1, 3) and (\u0661) and a(0)." in shown
    marks = Marks(frozenset({1, 2, 3}))
    assert marks.push(shown) + marks.flush() == shown
    assert marks.cited == []


@given(texts=st.lists(st.text('<>/=" \npasge1number', max_size=60), min_size=2, max_size=4))
def test_no_passage_stands_inside_of_another_one(texts: list[str]) -> None:
    texts.append(delimited_passage(passage(1, texts[0])))
    shown = [delimited_passage(passage(number, text)) for number, text in enumerate(texts, 1)]
    prompt = "\n\n".join(shown)
    assert prompt.count("<passage") == prompt.count("</passage>") == len(texts)
    assert [prompt.count(each) for each in shown] == [1] * len(texts)
