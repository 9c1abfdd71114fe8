"""Content of requests: captured by a real gateway, written encrypted, read with a reason."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import httpx
import pytest

from assay.gateway.run import request_log
from governance.audit.models import AuditEvent
from governance.people.models import Person
from governance.permissions import Action
from governance.principals import Principal
from governance.request_log.models import (
    LoggedRequest,
    LogMode,
    RequestLogDay,
    RequestLogKey,
    RequestLogPolicy,
)
from governance.request_log.schemas import EndUser, RequestFilter, RequestLogSettings
from governance.request_log.selectors import requests_page
from governance.request_log.services import (
    request_content_read,
    request_log_forget_user,
    request_log_set,
)
from governance.usage.collector import collect_once
from registry.feedback.logged import feedback_from_log
from tests.people import make_person
from tests.proofs import proven
from tests.unit.assay.gateway_support import Stage, stage
from tests.waiting import wait_until
from workers.wire import Delta, Done, Failed, InferenceRequest

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
SECRET = "my diagnosis"
CHAT: dict[str, Any] = {"model": "writer", "messages": [{"role": "user", "content": SECRET}]}


def lead(stage: Stage, slug: str = "engineering") -> Principal:
    stage.department(slug)
    person = Person.objects.filter(email=f"lead.{slug}@example.org").first()
    return proven(person or make_person(f"Lead {slug}", f"lead@{slug}"))


def log(stage: Stage, slug: str = "engineering", **settings: Any) -> None:
    """Let a department log content, and wait until the gateway knows."""
    values = RequestLogSettings(mode=LogMode.FULL, **settings)
    request_log_set(actor=lead(stage, slug), department=stage.department(slug), log=values)
    runtime = stage.application.gateway.start()
    wait_until(lambda: slug in runtime.parts.request_log._full)


def logged(count: int = 1) -> list[LoggedRequest]:
    wait_until(lambda: LoggedRequest.objects.count() >= count)
    return list(LoggedRequest.objects.order_by("pk"))


def content_of(stage: Stage, row: LoggedRequest, entries: int = 1) -> dict[str, Any]:
    stage.entries(entries)
    collect_once(stage.redis, consumer="tests")
    _, content = request_content_read(
        actor=lead(stage), request_id=row.request_id, reason="A complaint."
    )
    return content


def test_an_answer_is_logged_and_read_with_a_reason(stage: Stage) -> None:
    stage.deployment()
    log(stage)
    answer = stage.post("/v1/chat/completions", stage.key(), json={**CHAT, "user": "patient-7"})
    assert answer.status_code == 200
    (row,) = logged()
    assert row.request_id == answer.headers["x-request-id"]
    assert SECRET.encode() not in bytes(row.content)
    assert b"patient-7" not in bytes(row.user_tag)
    content = content_of(stage, row)
    assert content["prompt"]["inputs"]["messages"] == CHAT["messages"]
    assert content["answer"] == {
        "outcome": "ok",
        "choices": [{"index": 0, "text": "Hello there", "tool_calls": []}],
        "finish_reason": "stop",
    }
    event = AuditEvent.objects.get(action=Action.REQUEST_LOG_READ_CONTENT)
    assert (event.subject_id, event.reason) == (row.request_id, "A complaint.")
    assert SECRET.encode() not in bytes(event.canonical)
    found = requests_page(lead(stage), RequestFilter(user="patient-7")).rows
    assert [record.request_id for record in found] == [row.request_id]
    assert not requests_page(lead(stage), RequestFilter(user="patient-8")).rows
    day = RequestLogDay.objects.get()
    assert (day.requests, day.bytes, day.dropped) == (1, len(row.content), 0)


def test_a_department_that_does_not_log_content_has_none(stage: Stage) -> None:
    stage.deployment(departments=("engineering", "finance"))
    log(stage)
    assert stage.post("/v1/chat/completions", stage.key("finance"), json=CHAT).status_code == 200
    assert stage.post("/v1/chat/completions", stage.key(), json=CHAT).status_code == 200
    assert [row.department.slug for row in logged()] == ["engineering"]


def test_a_policy_that_changes_meanwhile_decides_at_the_write(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.deployment()
    log(stage)
    monkeypatch.setattr(request_log, "FLUSH_S", 3_600)
    held = stage.application.gateway.start().parts.request_log
    held_department = held._full
    request_log_set(
        actor=lead(stage),
        department=stage.department("engineering"),
        log=RequestLogSettings(mode=LogMode.METADATA),
    )
    held._full = held_department
    assert stage.post("/v1/chat/completions", stage.key(), json=CHAT).status_code == 200
    wait_until(lambda: not held._queue)
    assert not LoggedRequest.objects.exists()


def test_a_canceled_stream_is_logged_as_far_as_it_came(stage: Stage) -> None:
    go_on = threading.Event()

    def slow(request: InferenceRequest, reply: Any) -> None:
        reply(Delta("First", 1))
        go_on.wait(60)
        reply(Done("canceled", 5, 1))

    stage.deployment(behavior=slow)
    log(stage)
    headers = {"authorization": f"Bearer {stage.key()}"}
    with httpx.stream(
        "POST", f"{stage.url}/v1/chat/completions", json={**CHAT, "stream": True}, headers=headers
    ) as answer:
        for line in answer.iter_lines():
            if "First" in line:
                break
    (row,) = logged()
    go_on.set()
    answered = content_of(stage, row)["answer"]
    assert answered["outcome"] == "canceled"
    assert [choice["text"] for choice in answered["choices"]] == ["First"]


def test_tool_calls_are_logged_whole(stage: Stage) -> None:
    def call(request: InferenceRequest, reply: Any) -> None:
        reply(Delta("", 1, call=(0, "weather", '{"city":')))
        reply(Delta("", 1, call=(0, "", ' "Oslo"}')))
        reply(Done("tool_calls", 9, 2))

    stage.deployment(behavior=call)
    log(stage)
    tools = [{"type": "function", "function": {"name": "weather"}}]
    stage.post("/v1/chat/completions", stage.key(), json={**CHAT, "tools": tools})
    (choice,) = content_of(stage, logged()[0])["answer"]["choices"]
    assert choice["tool_calls"] == [{"name": "weather", "arguments": '{"city": "Oslo"}'}]


def test_what_has_no_room_is_dropped_and_counted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.deployment()
    log(stage)
    monkeypatch.setattr(request_log, "BYTES_MAX", 10)
    assert stage.post("/v1/chat/completions", stage.key(), json=CHAT).status_code == 200
    wait_until(lambda: RequestLogDay.objects.filter(dropped=1).exists())
    assert not LoggedRequest.objects.exists()


def test_results_count_as_bytes_of_the_queue(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[list[float]] = []
    stage.deployment(
        behavior=lambda request, reply: reply(Done("stop", 5, 1, results=[*numbers] or None))
    )
    log(stage)
    monkeypatch.setattr(request_log, "BYTES_MAX", 40_000)
    assert stage.post("/v1/chat/completions", stage.key(), json=CHAT).status_code == 200
    logged()
    numbers.append([0.5] * 1_000)
    assert stage.post("/v1/chat/completions", stage.key(), json=CHAT).status_code == 200
    wait_until(lambda: RequestLogDay.objects.filter(requests=1, dropped=1).exists())


def test_content_that_was_held_too_long_is_dropped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a forgotten user is deleted after the same time."""
    stage.deployment()
    log(stage)
    monkeypatch.setattr(request_log, "UNWRITTEN_FOR", timedelta(0))
    assert stage.post("/v1/chat/completions", stage.key(), json=CHAT).status_code == 200
    wait_until(lambda: RequestLogDay.objects.filter(dropped=1).exists())
    assert not LoggedRequest.objects.exists()


def test_content_of_a_forgotten_user_is_gone_and_stays_away(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.deployment()
    log(stage)
    key = stage.key()
    for user in ("zoe", "bob", "zoe"):
        stage.post("/v1/chat/completions", key, json={**CHAT, "safety_identifier": user})
    rows = logged(3)
    forget = EndUser(user="zoe", reason="Requested on 3 May.")
    deleted = request_log_forget_user(
        actor=lead(stage), department=stage.department("engineering"), forget=forget
    )
    assert deleted == 2
    assert list(LoggedRequest.objects.values_list("request_id")) == [(rows[1].request_id,)]
    event = AuditEvent.objects.get(action=Action.REQUEST_LOG_ERASE)
    # No digest in hex can contain this name.
    assert b"zoe" not in bytes(event.canonical)


def test_a_logged_answer_is_sent_as_feedback(stage: Stage) -> None:
    stage.deployment()
    log(stage, datasets=True)
    stage.post("/v1/chat/completions", stage.key(), json=CHAT)
    (row,) = logged()
    content_of(stage, row)
    feedback = feedback_from_log(
        actor=lead(stage), request_id=row.request_id, reason="A good example."
    )
    assert (feedback.rating, feedback.answer, feedback.state) == ("up", "Hello there", "pending")
    assert feedback.input == {"messages": CHAT["messages"]}


def test_a_request_that_its_worker_refused_is_not_logged(stage: Stage) -> None:
    stage.deployment(
        behavior=lambda request, reply: reply(Failed("Too long.", "context_too_long", 400))
    )
    log(stage)
    assert stage.post("/v1/chat/completions", stage.key(), json=CHAT).status_code == 400
    asyncio.run(asyncio.sleep(2 * request_log.FLUSH_S))
    assert not LoggedRequest.objects.exists()


def test_keys_of_departments_differ(stage: Stage) -> None:
    log(stage, "engineering")
    log(stage, "finance")
    wrapped = {bytes(row.wrapped or b"") for row in RequestLogKey.objects.all()}
    assert len(wrapped) == 2
    assert RequestLogPolicy.objects.filter(mode=LogMode.FULL).count() == 2
