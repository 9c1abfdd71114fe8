"""A worker whose machine has the wrong time uses the control plane's."""

from __future__ import annotations

import threading
import time
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest

from workers import clock as clock_module
from workers import presence
from workers.clock import Clock
from workers.wire import presence_key

NOW = 1_900_000_000.0


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stop the clocks of the module, so that no pause between two calls counts."""
    clocks = SimpleNamespace(time=lambda: NOW, monotonic=lambda: 100.0)
    monkeypatch.setattr(clock_module, "time", clocks)
    return clocks


def date(ahead_s: float = 0.0) -> str:
    return formatdate(NOW - ahead_s, usegmt=True)


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
def test_a_clock_that_is_an_hour_off_is_replaced(
    ahead_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    clock.follow(date(ahead_s), sent_at=99.9)
    assert abs(clock.now() - (NOW - ahead_s)) < 1
    assert abs(clock.ahead_s - ahead_s) < 1
    assert "Set it right" in caplog.text
    clock.follow(date(ahead_s), sent_at=99.9)
    assert len(caplog.records) == 1, "said once"
    clock.follow(date(), sent_at=99.9)
    assert (clock.ahead_s, clock.now()) == (0.0, NOW)


def test_a_clock_that_is_set_meanwhile_changes_nothing(stopped: SimpleNamespace) -> None:
    clock = Clock()
    clock.follow(date(3600), sent_at=99.9)
    before = clock.now()
    stopped.time = lambda: 0.0
    stopped.monotonic = lambda: 107.0
    assert clock.now() == before + 7


@pytest.mark.parametrize("said", ["", "yesterday", "Mon, 99 Jan 2026 00:00:00 GMT"])
def test_a_date_that_says_nothing_changes_nothing(said: str) -> None:
    clock = Clock()
    clock.follow(said, sent_at=99.9)
    assert clock.ahead_s == 0.0
    clock.follow(date(3600), sent_at=90.0)
    assert clock.ahead_s == 0.0, "an answer that took ten seconds"


def test_signs_of_life_carry_the_control_planes_time(
    redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    clock.follow(date(3600), sent_at=99.9)
    monkeypatch.setattr(presence, "CLOCK", clock)
    stop = threading.Event()
    redis.zadd(presence_key(""), {"other@b": NOW - 3600})
    beats = threading.Thread(target=presence._beat, args=("engine@a", stop))
    beats.start()
    while (shown := redis.zscore(presence_key(""), "engine@a")) is None:
        time.sleep(0.01)
    others = redis.zscore(presence_key(""), "other@b")
    stop.set()
    beats.join()
    assert abs(shown - (NOW - 3600)) < 1
    assert others is not None, "not removed as silent"
