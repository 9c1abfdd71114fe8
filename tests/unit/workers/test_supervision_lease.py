"""A lease whose control plane is slow: the run is watched on, and stops in time."""

from __future__ import annotations

import threading
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.workers.test_run import Recorder
from tests.waiting import PATIENCE_S
from workers.control.jobs import Claim, HeartbeatReply, NoAnswer
from workers.supervision.lease import LeaseKeeper

CLAIM = Claim(uuid.uuid4(), 1, 1, "fine_tune", "Tune", "w1", lease_s=60)


class Slow(Recorder):
    """A control plane that answers to one kind of call only when it is told to."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.sending = threading.Event()
        self.call = call

    def heartbeat(self, claim: Claim) -> HeartbeatReply:
        if self.call == "heartbeat" and threading.current_thread().name == "assay-lease":
            self.sending.set()
            self.answers.wait()
        return super().heartbeat(claim)

    def checkpoint(self, claim: Claim, name: str, manifest: Any, remaining: Any) -> None:
        if self.call == "checkpoint":
            self.sending.set()
            self.answers.wait()
        super().checkpoint(claim, name, manifest, remaining)


def test_reports_go_on_while_a_checkpoint_is_sent() -> None:
    control = Slow("checkpoint")
    with LeaseKeeper(CLAIM, control) as lease:
        lease.checkpoint("checkpoint-1", {}, ["checkpoint-1"])
        lease.checkpoint("checkpoint-2", {}, ["checkpoint-1", "checkpoint-2"])
        lease.log("Step 2")
        lease.flush()
        assert (control.lines, control.told) == (["Step 2"], [])
        control.answers.set()
        lease.settle()
        assert control.told == [("checkpoint", "checkpoint-1"), ("checkpoint", "checkpoint-2")]


def test_a_checkpoint_waits_as_long_as_the_run_keeps_it() -> None:
    control = Slow("checkpoint")
    with LeaseKeeper(CLAIM, control) as lease:
        lease.checkpoint("checkpoint-1", {}, ["checkpoint-1"])
        assert control.sending.wait(PATIENCE_S)
        for step in range(2, 9):
            # The second one has the best weights.
            kept = [f"checkpoint-{number}" for number in sorted({2, step})]
            lease.checkpoint(kept[-1], {}, kept)
        control.answers.set()
        lease.settle()
    assert [name for _, name in control.told] == ["checkpoint-1", "checkpoint-2", "checkpoint-8"]


class Away(Recorder):
    """A control plane that gives no answer to the first requests; one checkpoint is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 2

    def checkpoint(self, claim: Claim, name: str, manifest: Any, remaining: Any) -> None:
        if name == "checkpoint-1":
            raise FileNotFoundError(name)
        self.left -= 1
        if self.left >= 0:
            raise NoAnswer("away")
        super().checkpoint(claim, name, manifest, remaining)


def test_a_checkpoint_is_recorded_once_the_control_plane_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.supervision.lease.RECORD_S", 0.01)
    control = Away()
    with LeaseKeeper(CLAIM, control) as lease:
        lease.checkpoint("checkpoint-1", {}, ["checkpoint-1"])
        lease.checkpoint("checkpoint-2", {}, ["checkpoint-1", "checkpoint-2"])
        lease.settle()
    assert control.told == [("checkpoint", "checkpoint-2")]


def test_a_result_waits_for_the_checkpoint_that_is_being_sent_and_for_no_other() -> None:
    control = Slow("checkpoint")
    with LeaseKeeper(CLAIM, control) as lease:
        lease.checkpoint("checkpoint-1", {}, ["checkpoint-1"])
        assert control.sending.wait(PATIENCE_S)
        lease.checkpoint("checkpoint-2", {}, ["checkpoint-2"])
        waiting = threading.Thread(target=lambda: lease.settle(needed=False))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        control.answers.set()
        waiting.join(PATIENCE_S)
        assert not waiting.is_alive()
        assert control.told == [("checkpoint", "checkpoint-1")]


def test_a_lease_is_lost_while_a_heartbeat_gets_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("workers.supervision.lease.time", clock)
    monkeypatch.setattr("workers.supervision.lease.RENEW_S", 0.01)
    control = Slow("heartbeat")
    with LeaseKeeper(CLAIM, control) as lease:
        assert control.sending.wait(PATIENCE_S)
        assert not lease.lost
        clock.monotonic = lambda: CLAIM.lease_s - 0.5
        assert lease.lost
        control.answers.set()
