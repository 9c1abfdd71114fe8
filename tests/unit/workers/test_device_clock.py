"""Shares of a device's time."""

from __future__ import annotations

from workers.celery_tasks.answering import DeviceClock


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_request_takes_all_of_the_time_and_an_idle_device_none() -> None:
    clock = Clock()
    device = DeviceClock(clock)
    clock.now += 7
    device.enter("a")
    clock.now += 2
    assert device.leave("a") == 2000
    assert device.leave("a") == 0


def test_those_that_run_at_once_share_and_their_shares_add_up_to_the_busy_time() -> None:
    clock = Clock()
    device = DeviceClock(clock)
    device.enter("a")
    clock.now += 1
    device.enter("b")
    clock.now += 2
    a = device.leave("a")
    clock.now += 3
    b = device.leave("b")
    assert (a, b) == (2000, 4000)
