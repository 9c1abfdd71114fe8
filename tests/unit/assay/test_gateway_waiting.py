"""Bounds on what waits for the database in a gateway: no department keeps another out."""

from __future__ import annotations

import asyncio
import math
from contextlib import ExitStack

import pytest

from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.http.waiting import WaitingBound
from assay.gateway.stored.feedback import DEPARTMENT_WAITING_MAX, FeedbackDesk
from governance.errors import Unavailable
from governance.principals import Principal, PrincipalKind
from registry.catalog.requests import Body


def test_a_department_takes_its_places_and_all_of_them_no_more_than_there_are() -> None:
    bound = WaitingBound(total=3, of_department=2, refusal="Too much waits.")
    with ExitStack() as waiting:
        waiting.enter_context(bound.place("a"))
        waiting.enter_context(bound.place("a"))
        with pytest.raises(Unavailable, match="Too much waits"), bound.place("a"):
            pass
        waiting.enter_context(bound.place("b"))
        with pytest.raises(Unavailable), bound.place("c"):
            pass
    with bound.place("a"), bound.place("a"), bound.place("c"):
        pass


def test_feedback_of_a_department_whose_places_are_taken_is_refused() -> None:
    desk = FeedbackDesk()
    actor = Principal(kind=PrincipalKind.KEY, id="1", name="app", department="a")
    key = KeyEntry("k", b"", 1, "app", "a", math.inf, None, actor, ())
    with ExitStack() as waiting:
        for _ in range(DEPARTMENT_WAITING_MAX):
            waiting.enter_context(desk._waiting.place("a"))
        body = Body("application/json", b'{"request_id": "req_1"}')
        with pytest.raises(Unavailable, match="Too much feedback") as refused:
            asyncio.run(desk.take(key, body, "req_2", ""))
    assert refused.value.retry_after == 2
    asyncio.run(desk.stop())
