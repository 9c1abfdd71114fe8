"""One request on an engine worker: refused where it must be, answered on its stream otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
from redis import Redis

from registry.manifests import Manifest
from tests.unit.workers import company, echo
from tests.unit.workers.sealed import Wire, answering, entries
from tests.waiting import PATIENCE_S
from workers.celery_tasks.hosting import EngineHost
from workers.celery_tasks.inference import show_life
from workers.celery_tasks.replies import Replies, Reply, failure_replies, merge_replies
from workers.control.protocol import LoadPlan, Weights
from workers.wire import (
    ALIVE_FOR_MS,
    Delta,
    Done,
    Event,
    Failed,
    InferenceRequest,
    RequestStarted,
    alive_key,
)

STREAM = "replies"
ENGINE = "tests.unit.workers.echo:EchoEngine"


def weights(name: str, base_digest: str | None = None) -> Weights:
    files = {"config.json": b"{}", "weights.bin": name.encode()}
    manifest: Manifest = company.stored(files, base_digest)
    return Weights(name=name, digest=manifest.digest, manifest=manifest)


def plan(deployment_id: int = 1, *, adapter: str = "", hour: float = 1.0) -> LoadPlan:
    base = weights("base")
    on_it = weights(adapter, base.digest) if adapter else None
    return LoadPlan(
        deployment_id=deployment_id,
        name="docs",
        task="text-generation",
        engine=ENGINE,
        runner="",
        architectures=(),
        digest=(on_it or base).digest,
        expires_at=time.time() + 3600 * hour,
        weights=base,
        adapter=on_it,
    )


def request_for(plan: LoadPlan, prompt: str = "one two", **changes: object) -> InferenceRequest:
    request = InferenceRequest(
        request_id="r1",
        deployment_id=plan.deployment_id,
        deployment=plan.name,
        digest=plan.digest,
        reply_stream=STREAM,
        inputs={"prompt": prompt},
        stream=True,
        enqueued_at=time.time(),
        deadline=time.time() + 60,
        expires_at=plan.expires_at,
    )
    return replace(request, **changes)  # type: ignore[arg-type]


@pytest.fixture
def host() -> Iterator[EngineHost]:
    host = EngineHost()
    host.lease({pk: float("inf") for pk in range(100)})
    yield host
    host.close()
    assert echo.OPEN == []


def events_of(redis: Redis, host: EngineHost, request: InferenceRequest) -> list[Event]:
    wire = Wire()
    with answering(redis, host) as answerer:
        answerer.answer(*wire.open(request))
    return told(wire.read(redis))


def told(events: list[Event]) -> list[Event]:
    """Events that reach the caller; the worker's start is not one."""
    return [event for event in events if not isinstance(event, RequestStarted)]


def test_an_answer_arrives_on_the_stream_and_the_stream_expires(
    redis: Redis, host: EngineHost
) -> None:
    host.load(plan())
    *deltas, done = events_of(redis, host, request_for(plan()))
    assert "".join(delta.text for delta in deltas if isinstance(delta, Delta)) == "onetwo"
    assert isinstance(done, Done)
    assert (done.finish_reason, done.completion_tokens) == ("stop", 2)
    assert 0 < redis.ttl(STREAM) <= 600


def test_an_answer_that_is_not_streamed_comes_in_one_piece(redis: Redis, host: EngineHost) -> None:
    host.load(plan())
    text, done = events_of(redis, host, request_for(plan(), stream=False))
    assert text == Delta("onetwo", 2)
    assert isinstance(done, Done)


@pytest.mark.parametrize(
    ("changes", "code", "status"),
    [
        ({"digest": "0" * 64}, "digest_mismatch", 503),
        ({"deployment_id": 9}, "not_loaded", 503),
        ({"deadline": 1.0}, "timeout", 504),
        ({"expires_at": 1.0}, "release_expired", 403),
    ],
    ids=["other bytes", "not loaded", "too late", "expired"],
)
def test_a_request_that_must_not_run_is_refused_by_the_worker_too(
    redis: Redis, host: EngineHost, changes: dict[str, object], code: str, status: int
) -> None:
    host.load(plan())
    (failed,) = events_of(redis, host, request_for(plan(), **changes))
    assert isinstance(failed, Failed)
    assert (failed.code, failed.status) == (code, status)


def test_an_expired_plan_refuses_whatever_the_request_says(redis: Redis, host: EngineHost) -> None:
    over = plan(hour=-1)
    host.load(over)
    request = request_for(over, expires_at=time.time() + 99)
    (failed,) = events_of(redis, host, request)
    assert isinstance(failed, Failed)
    assert failed.code == "release_expired"


def test_a_cancel_ends_a_running_request_and_overtakes_a_queued_one(
    redis: Redis, host: EngineHost
) -> None:
    host.load(plan())
    wire = Wire()
    with answering(redis, host) as answerer:
        answerer.answer(*wire.open(request_for(plan(), "wait")))
        answerer.cancel("r1")
        answerer.cancel("r2")
        answerer.answer(*wire.open(request_for(plan(), request_id="r2")))
    ends = [event for event in wire.read(redis) if isinstance(event, Done)]
    assert [end.finish_reason for end in ends] == ["canceled", "canceled"]


def test_a_cancel_is_heard_that_comes_before_the_engine_knows_the_request(
    redis: Redis, host: EngineHost
) -> None:
    host.load(plan())
    wire = Wire()
    request = wire.open(request_for(plan(), "prepare", deadline=time.time() + 100))
    with answering(redis, host) as answerer:
        running = threading.Thread(target=answerer.answer, args=request)
        running.start()
        assert echo.OPEN[0].arrived.wait(PATIENCE_S)
        answerer.cancel("r1")
        echo.OPEN[0].prepared.set()
        running.join(PATIENCE_S)
        assert not running.is_alive()
    (end,) = told(wire.read(redis))
    assert isinstance(end, Done)
    assert end.finish_reason == "canceled"


@pytest.mark.parametrize(("prompt", "raised"), [("panic", False), ("exit", True)])
def test_whatever_an_engine_raises_the_request_has_an_end(
    redis: Redis, host: EngineHost, prompt: str, raised: bool
) -> None:
    host.load(plan())
    wire = Wire()
    with (
        answering(redis, host) as answerer,
        pytest.raises(SystemExit) if raised else nullcontext(),
    ):
        answerer.answer(*wire.open(request_for(plan(), prompt)))
    (end,) = told(wire.read(redis))
    assert isinstance(end, Failed)
    assert (end.code, end.status) == ("engine_error", 500)


@pytest.fixture
def hours_pass(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a call that puts the time of deadlines an hour ahead.

    A short deadline would pass before a busy machine has begun the request.
    """
    ahead_s = [0.0]
    clock = SimpleNamespace(now=lambda: time.time() + ahead_s[0])
    monkeypatch.setattr("workers.celery_tasks.answering.CLOCK", clock)

    def pass_by() -> None:
        ahead_s[0] = 3600.0

    return pass_by


def test_a_request_over_its_deadline_is_canceled_in_the_engine(
    redis: Redis, host: EngineHost, hours_pass: Callable[[], None]
) -> None:
    host.load(plan())
    wire, begun = Wire(), time.monotonic()
    with answering(redis, host) as answerer:
        answerer.answer(*wire.open(request_for(plan(), "wait")))
        time.sleep(0.01)
        hours_pass()
    (done,) = told(wire.read(redis))
    assert isinstance(done, Done)
    assert done.finish_reason == "canceled"
    assert 10 <= done.device_ms <= 1000 * (time.monotonic() - begun)


def test_a_stream_that_pauses_for_too_long_is_canceled_in_the_engine(
    redis: Redis, host: EngineHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.celery_tasks.answering.IDLE_GRACE_S", 0.0)
    host.load(plan())
    wire = Wire()
    with answering(redis, host) as answerer:
        answerer.answer(*wire.open(request_for(plan(), "one wait", idle_s=0.05)))
    (done,) = told([event for event in wire.read(redis) if isinstance(event, Done | Failed)])
    assert isinstance(done, Done)
    assert done.finish_reason == "canceled"


def test_an_engine_that_cannot_cancel_keeps_no_other_request_past_its_deadline(
    redis: Redis,
    host: EngineHost,
    hours_pass: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host.load(plan())
    cancel = echo.OPEN[0].cancel

    def broken(request_id: str) -> None:
        if request_id == "r1":
            raise RuntimeError("The engine is broken.")
        cancel(request_id)

    monkeypatch.setattr(echo.OPEN[0], "cancel", broken)
    monkeypatch.setattr("workers.celery_tasks.answering.CANCEL_GRACE_S", 0.5)
    wire = Wire()
    with answering(redis, host) as answerer:
        for name in ("r1", "r2"):
            answerer.answer(*wire.open(request_for(plan(), "wait", request_id=name)))
        hours_pass()
    first, second = sorted(told(wire.read(redis)), key=lambda end: isinstance(end, Failed))
    assert isinstance(first, Done)
    assert isinstance(second, Failed)
    assert (first.finish_reason, second.code) == ("canceled", "timeout")


def test_a_request_waits_for_a_place_while_too_many_run(redis: Redis, host: EngineHost) -> None:
    host.load(plan())
    wire = Wire()
    with answering(redis, host, most=2) as answerer:
        for name in ("r1", "r2"):
            answerer.answer(*wire.open(request_for(plan(), "wait", request_id=name)))
        third = wire.open(request_for(plan(), request_id="r3"))
        waiting = threading.Thread(target=answerer.answer, args=third)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        answerer.cancel("r1")
        waiting.join(PATIENCE_S)
        assert not waiting.is_alive()
        answerer.cancel("r2")


def test_adapters_share_one_engine_which_ends_with_its_last_user(host: EngineHost) -> None:
    one, two = plan(1, adapter="one"), plan(2, adapter="two")
    assert (host.load(one), host.load(two)) == (one.digest, two.digest)
    (engine,) = echo.OPEN
    assert engine.adapters == {"1": b"one", "2": b"two"}
    assert engine.folder.parent.parent.stat().st_mode & 0o777 == 0o700
    host.unload(1)
    assert engine.adapters == {"2": b"two"}
    host.unload(2)
    assert echo.OPEN == []
    assert not engine.folder.exists()


def test_neighbouring_deltas_of_a_request_are_joined_and_nothing_is_reordered() -> None:
    wire = Wire()
    seals = {name: wire.open(request_for(plan(), request_id=name))[1] for name in "ab"}

    def of(request_id: str, event: Event) -> Reply:
        return Reply(seals[request_id], event)

    done = Done("stop", 1, 2)
    sent = [
        of("a", Delta("x", 1)),
        of("b", Delta("1", 1)),
        of("a", Delta("y", 1)),
        of("a", done),
        of("b", Delta("2", 1)),
    ]
    joined = [of("a", Delta("xy", 2)), of("b", Delta("12", 2)), of("a", done)]
    assert merge_replies(sent) == joined
    assert [(each.request_id, type(each.event)) for each in failure_replies(sent)] == [
        ("a", Failed),
        ("b", Failed),
    ]


def test_without_a_lease_nothing_is_answered(redis: Redis, host: EngineHost) -> None:
    one = plan()
    host.load(one)
    for lease in ({}, {one.deployment_id: time.monotonic() - 0.001}):
        host.lease(lease)
        (answer,) = events_of(redis, host, request_for(one))
        assert isinstance(answer, Failed)
        assert (answer.code, answer.status) == ("release_not_confirmed", 503)
        redis.delete(STREAM)
    host.lease({one.deployment_id: time.monotonic() + 60})
    assert isinstance(events_of(redis, host, request_for(one))[-1], Done)


@pytest.mark.parametrize("others", [0, 1])
def test_a_worker_says_that_it_has_taken_a_request_if_others_could(
    redis: Redis, host: EngineHost, others: int
) -> None:
    host.load(plan())
    wire = Wire()
    held_by = [each.public_key for each in (wire.worker, *(Wire().worker,) * others)]
    with answering(redis, host) as answerer:
        answerer.answer(*wire.worker.open(wire.seal(request_for(plan()), *held_by)))
    assert (RequestStarted() in wire.read(redis)) == bool(others)


def test_an_answer_that_is_not_streamed_is_one_entry(redis: Redis, host: EngineHost) -> None:
    host.load(plan())
    wire = Wire()
    with answering(redis, host) as answerer:
        answerer.answer(*wire.open(request_for(plan(), stream=False)))
    [entry] = entries(redis)
    *_, end = wire.events(entry)
    assert isinstance(end, Done)


def test_a_worker_shows_life_until_it_ends(redis: Redis) -> None:
    stop = threading.Event()
    life = threading.Thread(target=show_life, args=("ab", stop))
    life.start()
    while not redis.exists(alive_key("ab")):
        assert life.is_alive()
    assert 0 < redis.pttl(alive_key("ab")) <= ALIVE_FOR_MS
    stop.set()
    life.join(PATIENCE_S)
    assert not redis.exists(alive_key("ab"))


def test_an_event_that_cannot_be_written_ends_its_request_alone(redis: Redis) -> None:
    wire, replies = Wire(), Replies(redis)
    for request_id, text in (("broken", "\ud800"), ("fine", "yes")):
        _, seals = wire.open(request_for(plan(), request_id=request_id))
        replies.put(Reply(seals, Delta(text, 1)))
        replies.put(Reply(seals, Done("stop", 1, 1)))
    replies.close()
    found = {fields[b"id"]: wire.events(fields) for fields in entries(redis, STREAM)}
    (failed,) = found[b"broken"]
    assert isinstance(failed, Failed)
    assert failed.code == "engine_error"
    assert found[b"fine"] == [Delta("yes", 1), Done("stop", 1, 1)]
