"""Code of another package in the gateway: it can hang or raise anything, and harms its own task
alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from assay.gateway.run import plug_ins
from registry.catalog import TASKS, task_catalog
from registry.catalog.code import CODES, NO_PACKAGES
from registry.catalog.endpoints import Answer, Endpoint, Plan
from registry.catalog.inputs import TextInputs
from registry.catalog.requests import Body
from registry.catalog.routes import routes
from tests.unit.assay.gateway_support import Reply, Stage, stage
from tests.waiting import PATIENCE_S
from workers.wire import Done, InferenceRequest

__all__ = ["stage"]

pytestmark = [pytest.mark.sweep, pytest.mark.django_db(transaction=True)]

PATH = "/v1/tasks/hostile"
# Time for code that hangs, in seconds.
BRIEF_S = 0.5
GO_ON, ENDED = threading.Event(), threading.Event()


def act(word: str) -> None:
    """Do what a word of the request says."""
    if word == "sleep":
        try:
            # It cannot be interrupted.
            GO_ON.wait(PATIENCE_S)
        finally:
            ENDED.set()
    if word == "loop":
        try:
            while True:
                pass
        finally:
            ENDED.set()
    if word == "exit":
        raise SystemExit(1)
    if word == "interrupt":
        raise KeyboardInterrupt
    if word == "fail":
        raise ZeroDivisionError


class Renderer:
    """Does harm when the answer is written."""

    def __init__(self, word: str) -> None:
        self._word = word

    def whole(self, answer: Answer) -> Any:
        act(self._word)
        return {"results": answer.results}


def read(body: Body, request_id: str, name: str) -> Plan:
    early, _, late = body.data.decode().strip('"').partition(" ")
    act(early)
    if late in ("sleep", "loop"):
        plug_ins.SECONDS = BRIEF_S
    return Plan(name, TextInputs(input=["x"]), Renderer(late), 1, 1, units=1)


@pytest.fixture(autouse=True)
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A task of a package that no distribution of Assay provides."""
    # Only code that hangs reaches its time limit, also on a busy machine.
    monkeypatch.setattr(plug_ins, "SECONDS", PATIENCE_S)
    task = replace(
        TASKS["embeddings"], name="hostile", endpoints=(Endpoint(PATH, read, named=True),)
    )
    monkeypatch.setitem(task_catalog().tasks, task.name, task)
    monkeypatch.setitem(CODES, task.name, NO_PACKAGES)
    routes.cache_clear()
    GO_ON.clear()
    yield
    GO_ON.set()
    routes.cache_clear()


def works(request: InferenceRequest, reply: Reply) -> None:
    reply(Done("stop", 1, 0, results=["done"]))


def ask_slow(stage: Stage, key: str, word: str) -> httpx.Response:
    """Send a request whose code hangs, and give the hanging part a short time limit."""
    with pytest.MonkeyPatch.context() as brief:
        # Reading ends in time if only the rendering hangs; it then sets the short limit.
        brief.setattr(plug_ins, "SECONDS", PATIENCE_S if " " in word else BRIEF_S)
        return ask(stage, key, word)


def ask(stage: Stage, key: str, word: str) -> httpx.Response:
    body = f'"{word}"'.encode()
    headers = {"content-type": "application/json"}
    return stage.post(f"{PATH}/thing", key, content=body, headers=headers)


@pytest.mark.parametrize("late", [False, True], ids=["reading", "rendering"])
@pytest.mark.parametrize("word", ["sleep", "loop", "exit", "interrupt", "fail"])
def test_code_that_hangs_or_raises_anything_fails_its_own_request(
    stage: Stage, word: str, late: bool
) -> None:
    stage.deployment("thing", task="hostile", behavior=works)
    key = stage.key()
    ENDED.clear()
    slow = word in ("sleep", "loop")
    answer = (ask_slow if slow else ask)(stage, key, f"x {word}" if late else word)
    assert answer.status_code == (503 if slow else 500), answer.text
    if slow:
        assert "The package of the task hostile took longer than 0.5 s" in answer.text
        GO_ON.set()
        # A loop in Python is ended, so that it takes nothing from other requests.
        assert ENDED.wait(PATIENCE_S)
    assert ask(stage, key, "x").json() == {"results": ["done"]}


def test_calls_that_never_end_take_no_more_than_their_places(stage: Stage) -> None:
    stage.deployment("thing", task="hostile", behavior=works)
    key = stage.key()
    answers = [ask_slow(stage, key, "sleep") for _ in range(3)]
    assert {each.status_code for each in answers} == {503}
    assert ask(stage, key, "x").status_code == 200
