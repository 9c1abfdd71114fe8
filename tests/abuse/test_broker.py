"""Somebody who can write to the broker: they can hold up work, and can make none, change none, and
read nothing into the ledger that is not there.
"""

from __future__ import annotations

import json
import os
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest
import redis as redis_module
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.serialization import loads

from governance.audit.models import AuditEvent
from governance.usage.collector import DEAD_STREAM, collect_once
from governance.usage.models import UsageRecord
from governance.usage.records import USAGE_STREAM
from governance.usage.sealing import seal
from tests.abuse.database import digests
from tests.abuse.test_replay import entry
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.portal_data import Company
from tests.unit.workers.sealed import Wire, answering
from tests.unit.workers.test_tasks_answering import plan, request_for
from tests.waiting import wait_until
from workers.app import app
from workers.celery_tasks.answering import Answerer
from workers.celery_tasks.hosting import EngineHost
from workers.control.protocol import LoadPlan
from workers.jobs.leases import job_claim, job_deliver, job_fail
from workers.jobs.models import Job
from workers.wire import (
    CANCEL_CHANNEL,
    DEPLOYMENTS_CHANNEL,
    SNAPSHOT_CHANNEL,
    Done,
    Failed,
    InferenceRequest,
)

__all__ = ["stage"]

CHAT = "/v1/chat/completions"
GOOD = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}]}


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/assay-unpickled",)


@pytest.mark.parametrize("kind", ["pickle", "application/x-python-serialize", "yaml"])
def test_a_message_that_could_run_code_is_not_read(kind: str) -> None:
    """Neither by Celery's workers nor by a queue's reader."""
    assert app.conf.accept_content == ["json"]
    with pytest.raises((ContentDisallowed, DecodeError)):
        loads(pickle.dumps(Bomb()), kind, "binary", accept=["json"])
    assert not os.path.exists("/tmp/assay-unpickled")


@pytest.mark.parametrize(
    "job_id", ["", "1", "not-an-id", "'; DROP TABLE workers_job; --", "../../x", "\x00"]
)
def test_a_message_for_no_job_claims_none(company: Company, job_id: str) -> None:
    before = digests()
    with pytest.raises(ValueError, match="badly formed"):
        job_claim(job_id=job_id, worker="mallory")
    assert digests() == before


def test_a_message_for_a_job_that_is_unknown_over_or_held_claims_none(company: Company) -> None:
    """Whatever state it is in: the row says whether there is work, not the message."""
    before = digests()
    for job_id in (uuid.uuid4(), company.done.pk, company.failed.pk, company.running.pk):
        assert job_claim(job_id=job_id, worker="mallory") is None
    assert digests() == before


def test_a_worker_with_an_old_lease_delivers_nothing(company: Company) -> None:
    """Its message came again, another worker has the job, and it goes on regardless."""
    job = Job.objects.create(
        kind="evaluate", state="queued", title="t", spec={"notes": "theirs"},
        department=company.departments["engineering"], created_by=company.enzo,
    )  # fmt: skip
    first = job_claim(job_id=job.pk, worker="mallory")
    assert first is not None
    Job.objects.filter(pk=job.pk).update(lease_until="2020-01-01T00:00:00Z")
    second = job_claim(job_id=job.pk, worker="honest")
    assert second is not None
    before = digests()
    for late in (first, replace(first, fence=99), replace(second, job_id=uuid.uuid4())):
        for write in (
            lambda c=late: job_fail(c, "x", retry=True),
            lambda c=late: job_deliver(c, {}),
        ):
            with pytest.raises(Exception, match=r"lease|held|There is no"):
                write()
    assert digests() == before


@pytest.fixture
def worker(db: None, redis: redis_module.Redis) -> Iterator[tuple[Answerer, LoadPlan]]:
    """An engine worker that has loaded one deployment."""
    host = EngineHost()
    planned = plan()
    host.load(planned)
    host.lease({planned.deployment_id: float("inf"), 999: float("inf")})
    with answering(redis, host) as answerer:
        yield answerer, planned
    host.close()


FORGED: dict[str, dict[str, Any]] = {
    "other bytes than were approved": {"digest": "0" * 64},
    "no bytes at all": {"digest": ""},
    "an expired release": {"expires_at": 1.0},
    "a deployment that is not here": {"deployment_id": 999},
}


@pytest.mark.parametrize("what", FORGED)
def test_a_request_for_other_bytes_than_are_loaded_runs_nothing(
    worker: tuple[Answerer, LoadPlan], redis: redis_module.Redis, what: str
) -> None:
    answerer, planned = worker
    wire = Wire()
    answerer.answer(*wire.open(request_for(planned, **FORGED[what])))
    wait_until(lambda: redis.xlen("replies") >= 1)
    assert [type(each) for each in wire.read(redis)] == [Failed]


@pytest.mark.parametrize(
    "change",
    [{"surprise": 1}, {"request_id": None}, {"__class__": "x"}],
    ids=["a member too many", "a member of nothing", "a class"],
)
def test_a_message_of_another_shape_is_not_taken(change: dict[str, Any]) -> None:
    good = asdict(InferenceRequest("r", 1, "d", "0" * 64, "s", {}))
    if list(change.values()) == [None]:
        good.pop(next(iter(change)))
        change = {}
    with pytest.raises(TypeError):
        InferenceRequest.from_message({**good, **change})


JUNK: tuple[bytes, ...] = (
    b"", b"null", b"[]", b"{}", b"not json", b"\xff\xfe", b'{"request_id": "x"}',
    b'{"request_id": 1, "occurred_at": "soon"}', json.dumps(asdict(entry(request_id=""))).encode(),
    json.dumps({**asdict(entry(request_id="neg")), "occurred_at": 1e300}).encode(),
    json.dumps({**asdict(entry(request_id="huge")), "prompt_tokens": 10**30}).encode(),
    json.dumps({**asdict(entry(request_id="bool")), "prompt_tokens": "many"}).encode(),
    json.dumps({**asdict(entry(request_id="x" * 500))}).encode(),
    json.dumps({**asdict(entry(request_id="nul")), "deployment": "a\x00b"}).encode(),
)  # fmt: skip


def test_junk_in_the_usage_stream_is_put_aside_and_holds_nothing_up(
    company: Company, redis: redis_module.Redis
) -> None:
    records = UsageRecord.objects.count()
    for each in JUNK:
        redis.xadd(USAGE_STREAM, {"entry": each})
        redis.xadd(USAGE_STREAM, {"entry": seal(each.decode("utf-8", "replace"))})
    redis.xadd(USAGE_STREAM, {"other": b"field"})
    redis.xadd(USAGE_STREAM, {"entry": entry(request_id="honest").encode()})
    while collect_once(redis, consumer="attack", block_ms=1):
        pass
    assert redis.xlen(USAGE_STREAM) == 0
    assert UsageRecord.objects.filter(request_id="honest").exists()
    added = UsageRecord.objects.count() - records
    assert added + redis.xlen(DEAD_STREAM) == 2 * len(JUNK) + 2


def test_usage_names_the_key_that_exists(company: Company, redis: redis_module.Redis) -> None:
    """The identity of a key comes from the database, not from the entry."""
    made = entry(request_id="made", key_name="Carla Compliance", key_public_id="k7f3a9q2")
    redis.xadd(USAGE_STREAM, {"entry": made.encode()})
    collect_once(redis, consumer="attack", block_ms=1)
    assert AuditEvent.objects.get(delivery="made").actor_name != "Carla Compliance"


def test_usage_forged_for_another_department_books_nothing(
    company: Company, redis: redis_module.Redis
) -> None:
    before = UsageRecord.objects.count()
    forged = entry(request_id="forged", department="finance", cost_micro=9_000_000_000)
    redis.xadd(USAGE_STREAM, {"entry": forged.to_json()})
    collect_once(redis, consumer="attack", block_ms=1)
    assert UsageRecord.objects.count() == before
    assert not AuditEvent.objects.filter(delivery="forged").exists()
    assert AuditEvent.objects.filter(action="usage:refuse", outcome="denied").count() == 1


def test_junk_on_the_reply_stream_costs_no_other_request_its_answer(stage: Stage) -> None:
    """Entries of no shape, of other requests, and ends of requests that never were."""

    def noisy(request: InferenceRequest, reply: Callable[[Any], None]) -> None:
        client = stage.redis
        for fields in (
            {"id": "req_other", "event": "junk"},
            {"id": "req_other"},
            {"id": "", "event": '{"type": "shutdown"}'},
            {"event": "{}"},
            {"id": "req_somebody_else", "event": '{"type": "delta", "text": "x", "tokens": 1}'},
            {"id": b"\xff", "event": b"\xff"},
        ):
            client.xadd(request.reply_stream, fields)  # type: ignore[arg-type]
        reply(Done("stop", prompt_tokens=1, completion_tokens=1))

    stage.deployment(behavior=noisy)
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 200


@pytest.mark.parametrize("channel", [SNAPSHOT_CHANNEL, CANCEL_CHANNEL, DEPLOYMENTS_CHANNEL])
def test_junk_on_a_channel_stops_nobody(stage: Stage, channel: str) -> None:
    stage.deployment()
    token = stage.key()
    for notice in (b"", b"\xff" * 100, b"key:", b"key:" + b"a" * 5000, b"{}", b"key:'; --"):
        stage.redis.publish(channel, notice)
    time.sleep(0.2)
    assert stage.post(CHAT, token, json=GOOD).status_code == 200


def test_a_forged_notice_makes_no_key(stage: Stage) -> None:
    """Notices say where to look; what is there, the database says."""
    stage.deployment()
    stage.redis.publish(SNAPSHOT_CHANNEL, "key:mallory")
    junk = "assay_mallory_" + "A" * 43 + "_00000000"
    assert stage.post(CHAT, junk, json=GOOD).status_code == 401


def test_a_flood_of_notices_does_not_hold_up_answers(stage: Stage) -> None:
    stage.deployment()
    token = stage.key()
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            stage.redis.publish(SNAPSHOT_CHANNEL, "")

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        started = time.monotonic()
        assert stage.post(CHAT, token, json=GOOD).status_code == 200
        assert time.monotonic() - started < 60  # Long before the deadline of the request.
    finally:
        over.set()
        thread.join()


def test_a_request_that_another_gateway_answers_for_is_not_confused(stage: Stage) -> None:
    """An answer to a made-up id goes nowhere."""
    stage.deployment(behavior=lambda request, reply: reply(Done("stop", 1, 1)))
    token = stage.key()
    first = stage.post(CHAT, token, json=GOOD).json()["id"]
    second = stage.post(CHAT, token, json=GOOD).json()["id"]
    assert first != second
