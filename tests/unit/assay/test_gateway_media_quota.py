"""Files of requests are decoded after quotas have room, in turns of keys, and what a request
reserved is given back whatever its file does to the decoder.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis as redis_module

from assay.gateway.quota.quotas import Quotas, QuotaStopped
from governance.errors import Unavailable
from governance.quotas.store import read_counts
from governance.quotas.wire import Amount, Limit, Queued
from registry.media import decoders
from registry.sandbox import readers
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.test_gateway_accounts import (
    DAY,
    DEVICE,
    EVERY,
    MONEY,
    REQUESTS,
    SLOTS,
    TOKENS,
    counted,
    entry,
    quotas,
    reserve,
)
from tests.unit.assay.test_gateway_media import picture, sound
from tests.unit.registry.media_bombs import many_scans
from tests.waiting import wait_until
from workers.wire import Done, InferenceRequest

__all__ = ["quotas", "stage"]

SORTER = "/v1/tasks/image-classification/sorter"
LISTENER = "/v1/tasks/audio-classification/listener"


def answer(request: InferenceRequest, reply: Any) -> None:
    reply(Done("stop", 0, 0, results=[[{"label": "cat", "score": 1.0}]], units=1))


@pytest.fixture
def sorter(stage: Stage) -> Stage:
    """A deployment that classifies images, metered in images."""
    stage.deployment("sorter", task="image-classification", behavior=answer)
    return stage


def send(stage: Stage, token: str, content: bytes, path: str = SORTER) -> httpx.Response:
    kind = "audio/wav" if path == LISTENER else "image/png"
    return stage.post(path, token, content=content, headers={"content-type": kind})


def reserved(*limits: tuple[str, str]) -> list[int]:
    return [count.reserved for count in read_counts(list(limits)).counts]


def test_a_file_is_decoded_for_those_alone_who_may_send_a_request(sorter: Stage) -> None:
    sorter.limit("requests_per_minute", 2)
    token = sorter.key()
    bad = [send(sorter, token, many_scans(250)) for _ in range(3)]
    assert [each.status_code for each in bad] == [400, 400, 429]
    assert bad[0].json()["error"]["code"] == "media_rejected"
    assert "requests per minute" in bad[2].json()["error"]["message"]


def test_a_file_that_is_refused_gives_back_what_its_request_reserved(sorter: Stage) -> None:
    sorter.limit("concurrent_requests", 1)
    sorter.limit("images_per_day", 2)
    token = sorter.key()
    for content in (b"no image", many_scans(250), picture()[:60]):
        refused = send(sorter, token, content)
        assert refused.status_code == 400, refused.text
    good = [send(sorter, token, picture()) for _ in range(3)]
    assert [each.status_code for each in good] == [200, 200, 429], good[0].text
    wait_until(lambda: sorter.redis.keys("assay:quota:reservation:*") == [])
    assert sorter.redis.hgetall("assay:quota:admitted") == {}
    assert {each.outcome for each in sorter.entries(6)} == {
        "media_rejected", "ok", "quota_exceeded",
    }  # fmt: skip


def test_a_request_reserves_in_the_end_what_its_file_turns_out_to_be(stage: Stage) -> None:
    stage.limit("audio_seconds_per_day", 3)
    stage.limit("concurrent_requests", 1)
    seen: list[list[int]] = []
    limits = (
        ("department:engineering", "audio_seconds_per_day"),
        ("department:engineering", "concurrent_requests"),
    )

    def listen(request: InferenceRequest, reply: Any) -> None:
        seen.append(reserved(*limits))
        reply(Done("stop", 0, 0, results=[[{"label": "cat", "score": 1.0}]], units=2))

    stage.deployment("listener", task="audio-classification", behavior=listen)
    token = stage.key()
    # Its first second fits, the others do not.
    long = send(stage, token, sound(3.5), LISTENER)
    assert long.status_code == 429
    assert "audio seconds per day" in long.json()["error"]["message"]
    wait_until(lambda: reserved(*limits) == [0, 0])
    found = send(stage, token, sound(2.25), LISTENER)
    assert found.status_code == 200, found.text
    assert found.headers["x-assay-units"] == "2 audio_seconds"
    assert seen == [[3, 1]]
    assert reserved(*limits) == [0, 0]
    assert send(stage, token, sound(1), LISTENER).status_code == 200


@pytest.fixture
def patient(sorter: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A gateway whose decoder works for ever on PNG, and takes all memory for JPEG."""
    command, tests = readers.reader_command, Path(__file__).resolve().parents[2]
    monkeypatch.setattr(decoders, "_MODULE", "tests.unit.registry.patient_decoder")
    monkeypatch.setattr(
        decoders,
        "reader_command",
        lambda module, reach, **more: command(module, readers.Reach(read=[tests]), **more),
    )
    desk = sorter.application.gateway.start().media
    desk.decoders.close()
    desk.decoders = decoders.Decoders(desk.decoders._limits)
    return sorter


def test_a_decoder_that_is_killed_is_an_answer_and_gives_back_what_was_reserved(
    patient: Stage,
) -> None:
    patient.limit("concurrent_requests", 1)
    token = patient.key()
    for form in ("PNG", "JPEG"):
        refused = send(patient, token, picture(form=form))
        assert refused.status_code == 400
        assert "more time or memory" in refused.json()["error"]["message"]
    assert send(patient, token, picture(form="WEBP")).status_code == 200
    wait_until(lambda: patient.redis.keys("assay:quota:reservation:*") == [])


def test_a_machine_that_is_too_busy_to_decode_costs_no_request(
    sorter: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sorter.limit("requests_per_minute", 1)
    token = sorter.key()
    desk = sorter.application.gateway.start().media
    working = desk.decoders
    monkeypatch.setattr(decoders, "SECONDS", 0.0)
    desk.decoders = decoders.Decoders(working._limits)
    busy = [send(sorter, token, picture()) for _ in range(2)]
    desk.decoders.close()
    assert [each.status_code for each in busy] == [503, 503]
    assert busy[0].headers["retry-after"]
    desk.decoders = working
    assert send(sorter, token, picture()).status_code == 200


def test_a_key_whose_files_take_long_keeps_no_other_key_waiting(patient: Stage) -> None:
    slow, other = patient.key(), patient.key()
    with ThreadPoolExecutor(12) as threads:
        attack = [
            threads.submit(send, patient, slow, picture()) for _ in range(3 * decoders.AT_ONCE)
        ]
        answers = [send(patient, other, picture(form="WEBP")) for _ in range(4)]
        assert not all(each.done() for each in attack)
    assert [each.status_code for each in answers] == [200] * 4
    assert {each.result().status_code for each in attack} <= {400, 429, 503}


def test_a_department_with_many_keys_keeps_no_other_waiting(
    stage: Stage, patient: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its keys send files that take long; a place is left to others at any time."""
    stage.deployment(
        "sorter-2", task="image-classification", departments=("finance", "clinical"),
        behavior=answer,
    )  # fmt: skip
    desk = stage.application.gateway.start().media
    monkeypatch.setattr(desk.decoders._places, "_wait_s", 0.2)
    slow, other = [stage.key("finance") for _ in range(6)], stage.key("clinical")
    path = SORTER.replace("sorter", "sorter-2")
    with ThreadPoolExecutor(12) as threads:
        attack = [threads.submit(send, stage, key, picture(), path) for key in slow * 3]
        answers = [send(stage, other, picture(form="WEBP"), path) for _ in range(4)]
        assert not all(each.done() for each in attack)
    assert [each.status_code for each in answers] == [200] * 4


async def reserve_more(
    quotas: Quotas, request_id: str, *limits: Limit, queued: Queued | None = None, **amount: Any
) -> None:
    await quotas.reserve(
        entry=entry(request_id),
        limits=limits,
        amount=Amount(**{"units": 0, "micro": 0, "device_ms": 0, **amount}),
        lifetime_s=30,
        queued=queued,
        more=True,
    )


async def test_more_is_added_to_what_a_request_has_reserved(quotas: Quotas) -> None:
    await reserve(quotas, "req_1", *EVERY, units=1, micro=100, device_ms=10)
    await reserve_more(quotas, "req_1", *EVERY, units=9, micro=900, device_ms=90)
    assert counted(*EVERY) == [(0, 1000), (0, 10), (10, 0), (0, 100), (1, 0), (0, 1)]
    await quotas.settle(entry(prompt_tokens=2, completion_tokens=1, cost_micro=7, device_ms=42))
    assert counted(*EVERY) == [(7, 0), (3, 0), (3, 0), (42, 0), (1, 0), (0, 0)]


async def test_more_without_room_leaves_what_was_reserved_and_sends_nothing(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    await reserve(quotas, "req_1", *EVERY, units=1, micro=0, device_ms=0)
    queued = Queued("queue", b"message", 5)
    with pytest.raises(QuotaStopped, match="tokens"):
        await reserve_more(quotas, "req_1", *EVERY, units=100, queued=queued)
    assert redis.llen("queue") == 0
    assert counted(TOKENS, DAY, REQUESTS, SLOTS) == [(1, 0), (0, 1), (1, 0), (0, 1)]
    await quotas.withdraw("req_1", counts=True)
    assert counted(*EVERY) == [(0, 0), (0, 0), (0, 0), (0, 0), (1, 0), (0, 0)]
    await reserve(quotas, "req_2", *EVERY)
    await quotas.withdraw("req_2")
    assert counted(REQUESTS) == [(1, 0)]


async def test_a_message_is_sent_with_the_last_of_a_reservation(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    empty = Queued("queue", b"", 1)
    await quotas.reserve(entry=entry(), limits=[DAY], amount=Amount(1), lifetime_s=30, queued=empty)
    assert redis.llen("queue") == 0
    await reserve_more(quotas, "req_1", DAY, units=2, queued=Queued("queue", b"message", 1))
    assert redis.lrange("queue", 0, -1) == [b"message"]
    # Nothing is decoded for a queue that is full.
    with pytest.raises(Unavailable, match="too many waiting requests"):
        await quotas.reserve(
            entry=entry("req_2"), limits=[DAY], amount=Amount(1), lifetime_s=30, queued=empty
        )
    assert counted(DAY) == [(0, 3)]


async def test_there_is_no_more_of_a_reservation_that_is_gone(quotas: Quotas) -> None:
    with pytest.raises(Unavailable):
        await reserve_more(quotas, "req_1", DAY, MONEY, units=1)
    await reserve(quotas, "req_1", DAY, units=1)
    await quotas.withdraw("req_1")
    with pytest.raises(Unavailable):
        await reserve_more(quotas, "req_1", DAY, units=1)
    assert counted(DAY, MONEY, DEVICE) == [(0, 0)] * 3


async def test_reservations_in_two_steps_at_the_same_time_never_overspend(quotas: Quotas) -> None:
    async def one(number: int) -> int:
        name = f"req_{number}"
        try:
            await reserve(quotas, name, DAY, TOKENS, units=1, micro=0, device_ms=0)
        except QuotaStopped:
            return 0
        try:
            await reserve_more(quotas, name, DAY, TOKENS, units=6)
        except QuotaStopped:
            await quotas.withdraw(name, counts=True)
            return 0
        return 7

    taken = sum(await asyncio.gather(*map(one, range(60))))
    assert 0 < taken <= 100
    assert counted(DAY, TOKENS) == [(0, taken), (taken, 0)]
