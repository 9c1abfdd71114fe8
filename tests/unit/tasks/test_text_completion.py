"""Text completion: the endpoint with a suffix, cutting of documents, and the n-gram baseline."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry.catalog import get_task
from registry.catalog.endpoints import Plan
from registry.catalog.generation import GenerationInputs
from registry.catalog.requests import Body, RequestInvalid, invalid
from tasks.text_completion import evaluation_request
from tasks.text_completion.ngrams import NgramModel
from tasks.text_completion.schema import (
    CONTINUATION_CHARACTERS,
    PREFIX_CHARACTERS,
    cut,
    first_line,
)

TASK = get_task("text-completion")
PROGRAM = "def add(a, b):\n    total = a + b\n    return total\n"


def read(body: dict[str, Any]) -> Plan:
    (endpoint,) = TASK.endpoints
    return endpoint.read(Body("application/json", json.dumps(body).encode()), "req_1", "")


def plan(**body: Any) -> Plan:
    return read({"model": "m", **body})


def test_a_suffix_travels_with_the_prompt_and_is_counted() -> None:
    whole = plan(prompt="def f(", suffix="return 1" * 50, max_tokens=9)
    assert whole.inputs == GenerationInputs(prompt="def f(", suffix="return 1" * 50)
    assert whole.prompt_tokens > plan(prompt="def f(").prompt_tokens
    assert plan(prompt="x").inputs == GenerationInputs(prompt="x")


def test_a_suffix_without_a_prompt_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="prompt"):
        plan(suffix="x")
    with pytest.raises(RequestInvalid, match="suffix"):
        plan(prompt="x", suffix=["y"])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
FIELDS = ("model", "prompt", "suffix", "max_tokens", "temperature", "stop", "stream", "seed", "n")


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), VALUES, max_size=6))
def test_any_body_is_a_plan_or_is_refused_in_words(body: dict[str, Any]) -> None:
    words = ""
    try:
        made = read(body)
    except RequestInvalid as refused:
        words = str(refused)
    except ValidationError as refused:
        # The gateway does the same with what inputs and options refuse.
        words = str(invalid(refused))
    assert words or isinstance(made.inputs, GenerationInputs)


def test_a_document_is_cut_at_the_end_of_a_line() -> None:
    prefix, continuation = cut(PROGRAM)
    assert prefix == "def add(a, b):"
    assert first_line(continuation) == "    total = a + b"


@given(st.text(min_size=2, max_size=2_000))
def test_both_parts_of_a_document_hold_text_and_are_bounded(text: str) -> None:
    prefix, continuation = cut(text)
    assert 1 <= len(prefix) <= PREFIX_CHARACTERS
    assert 1 <= len(continuation) <= CONTINUATION_CHARACTERS
    assert prefix + continuation in text


def test_a_row_is_measured_without_the_end_of_the_answer() -> None:
    inputs, options = evaluation_request({"text": PROGRAM})
    assert inputs.prompt == "def add(a, b):"
    assert options.reference is not None
    assert options.reference.startswith("\n    total")
    assert not options.reference_ends


def test_the_baseline_gives_every_text_a_likelihood_and_knows_what_it_has_read() -> None:
    model = NgramModel([PROGRAM] * 3)
    assert model.trained_on == 3
    known = model.bits("def add(a, b):", "\n    total = a + b\n")
    unknown = model.bits("def add(a, b):", "\n    ЖЖЖ £ 数 \0 xyz!\n")
    assert known < 25
    assert known < unknown < math.inf
    assert first_line(NgramModel(["x = one\ny = two\n"]).next_line("x = one")) == "y = two"


def test_the_probabilities_of_the_baseline_sum_to_one() -> None:
    model = NgramModel([PROGRAM])
    for prefix in ("def a", "zzzz", ""):
        total = sum(2 ** -model.bits(prefix, chr(byte)) for byte in range(128))
        assert total == pytest.approx(1 - 0.001 / 2, abs=1e-6)
