"""The number by which a shadow's answer is compared with the original one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from assay.gateway.run.agreement import TEXT_MAX, AnswerText, Ended, Original, compared
from governance.usage.records import UsageEntry
from registry.catalog.declaration import Modality
from workers.wire import Delta, Done

ENTRY = UsageEntry(
    request_id="req_1",
    occurred_at=1.0,
    outcome="ok",
    endpoint="/v1/classify",
    release=7,
    total_ms=9,
)
SURE = [[{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}]]
UNSURE = [[{"label": "good", "score": 0.6}, {"label": "bad", "score": 0.4}]]
OTHER = [[{"label": "bad", "score": 0.8}, {"label": "good", "score": 0.2}]]
SPAN = {"entity_group": "drug", "start": 0, "end": 4}


@pytest.mark.parametrize(
    ("one", "other", "output", "measure", "agreement"),
    [
        (SURE, UNSURE, Modality.LABEL, "exact match", 1.0),
        (SURE, OTHER, Modality.LABEL, "exact match", 0.0),
        (
            [[{**SPAN, "score": 0.9}]],
            [[{**SPAN, "score": 0.5}]],
            Modality.SPANS,
            "exact match",
            1.0,
        ),
        ([[SPAN]], [[{**SPAN, "end": 5}]], Modality.SPANS, "exact match", 0.0),
        ("A cat.", "A cat.", Modality.TEXT, "chrF", 1.0),
        (["A cat."], ["A cat."], Modality.TEXT, "chrF", 1.0),
        ("abc", "xyz", Modality.TEXT, "chrF", 0.0),
        ([[0.1, 0.2]], [[0.1, 0.2]], Modality.VECTOR, "", None),
        (None, SURE, Modality.LABEL, "", None),
        ([["a"], ["b"]], "a", Modality.TEXT, "", None),
    ],
)
def test_answers_agree_by_text_or_by_label(
    one: Any, other: Any, output: Modality, measure: str, agreement: float | None
) -> None:
    result = asyncio.run(compared(Ended(ENTRY, one), other, (output,)))
    assert (result.against, result.total_ms, result.measure) == (7, 9, measure)
    assert result.agreement == (None if agreement is None else pytest.approx(agreement))


def test_only_the_beginning_of_a_text_is_kept() -> None:
    text = AnswerText()
    for _ in range(3):
        text.add(Delta("a" * TEXT_MAX, 1))
    text.add(Delta("b", 1, index=1))
    assert text.text == "a" * TEXT_MAX


@pytest.mark.parametrize(
    ("outcome", "is_compared"), [("ok", True), ("failed", True), ("canceled", False)]
)
def test_a_request_whose_caller_left_is_not_compared(outcome: str, *, is_compared: bool) -> None:
    async def ended() -> Ended | None:
        original = Original()
        original.text.add(Delta("Hi", 1))
        original.ended(replace(ENTRY, outcome=outcome), Done("stop", 1, 1))
        return await original.end

    assert (asyncio.run(ended()) is not None) == is_compared
