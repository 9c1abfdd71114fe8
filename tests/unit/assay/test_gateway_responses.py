"""Stored responses through the official client: kept, continued, deleted, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from django.utils import timezone

from assay.gateway.access.call import Call
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.stored.conversations import ResponseDesk
from assay.gateway.stored.database_desk import DEPARTMENT_WAITING_MAX
from governance.audit.models import AuditEvent
from governance.errors import Unavailable
from governance.people.models import Department
from governance.policy.models import PolicyVersion
from governance.principals import Principal, PrincipalKind
from registry.responses.models import ResponseRetention, StoredResponse
from registry.responses.services import responses_expire_due
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.policy_support import install_rules
from tests.waiting import PATIENCE_S, wait_until
from workers.wire import Delta, Done, Failed, InferenceRequest, deployment_queue

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
TOOLS: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]


def keep(slug: str = "engineering", days: int = 30) -> None:
    department, _ = Department.objects.get_or_create(slug=slug, defaults={"name": slug})
    ResponseRetention.objects.create(department=department, days=days)


def test_a_conversation_goes_on_from_its_stored_response(stage: Stage) -> None:
    stage.deployment()
    keep()
    responses = stage.client(stage.key()).responses
    first = responses.create(
        model="writer", input="Hi", instructions="Be brief.", metadata={"topic": "greeting"}
    )
    second = responses.create(
        model="writer",
        input=[{"role": "user", "content": "Again"}],
        previous_response_id=first.id,
        store=True,
    )
    with responses.stream(
        model="writer", input="And again", previous_response_id=second.id, store=True
    ) as stream:
        list(stream)
        third = stream.get_final_response()
    hello = {"role": "assistant", "content": "Hello there"}
    asked = stage.responders[0].requests
    assert asked[1].inputs["messages"] == [
        {"role": "user", "content": "Hi"},
        hello,
        {"role": "user", "content": "Again"},
    ]
    assert asked[2].inputs["messages"] == [
        *asked[1].inputs["messages"],
        hello,
        {"role": "user", "content": "And again"},
    ]
    assert second.previous_response_id == first.id
    found = responses.retrieve(third.id)
    assert (found.status, found.output_text) == ("completed", "Hello there")
    assert found.usage == third.usage
    assert responses.retrieve(first.id).metadata == {"topic": "greeting"}
    items = responses.input_items.list(second.id).data
    assert [item.content[0].text for item in items] == ["Again"]  # type: ignore[union-attr]
    row = StoredResponse.objects.get(pk=third.id)
    assert row.ancestors == [first.id, second.id]
    event = AuditEvent.objects.get(action="response:create", subject_id=first.id)
    assert (event.actor_kind, event.department) == ("key", "engineering")
    assert b"greeting" not in bytes(event.canonical)


def test_the_tokens_of_a_conversation_are_counted_without_being_charged(stage: Stage) -> None:
    stage.deployment()
    keep()
    responses = stage.client(stage.key()).responses
    first = responses.create(model="writer", input="Hi")
    counted = responses.input_tokens.count(
        model="writer", input="Again", previous_response_id=first.id
    )
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 5)
    request = stage.responders[0].requests[1]
    assert [turn["content"] for turn in request.inputs["messages"]] == [
        "Hi",
        "Hello there",
        "Again",
    ]
    assert request.options["max_tokens"] == 0
    entry = stage.entries(2)[1]
    assert (entry.prompt_tokens, entry.completion_tokens, entry.units) == (0, 0, 0)
    assert StoredResponse.objects.count() == 1


def test_a_call_and_its_result_go_on_from_a_stored_response(stage: Stage) -> None:
    def call(request: InferenceRequest, reply: Any) -> None:
        if len(request.inputs["messages"]) == 1:
            reply(Delta("", 2, call=(0, "weather", '{"city": "Oslo"}')))
            reply(Done("tool_calls", 9, 2))
        else:
            reply(Delta("Rain.", 1))
            reply(Done("stop", 9, 1))

    stage.deployment(behavior=call)
    keep()
    responses = stage.client(stage.key()).responses
    first = responses.create(model="writer", input="Rain?", tools=TOOLS)
    use: Any = first.output[0]
    last = responses.create(
        model="writer",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": use.call_id, "output": "rain"}],
    )
    assert last.output_text == "Rain."
    assert stage.responders[0].requests[1].inputs["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": use.call_id, "name": "weather", "arguments": {"city": "Oslo"}}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": use.call_id},
    ]


def test_a_call_that_the_length_cut_off_is_left_out_of_what_goes_on(stage: Stage) -> None:
    def cut(request: InferenceRequest, reply: Any) -> None:
        if len(request.inputs["messages"]) == 1:
            reply(Delta("", 2, call=(0, "weather", '{"city": "Os')))
            reply(Done("length", 9, 2))
        else:
            reply(Delta("Again?", 2))
            reply(Done("stop", 9, 2))

    stage.deployment(behavior=cut)
    keep()
    responses = stage.client(stage.key()).responses
    first = responses.create(model="writer", input="Weather?", tools=TOOLS)
    second = responses.create(model="writer", input="Try again.", previous_response_id=first.id)
    assert second.output_text == "Again?"
    assert stage.responders[0].requests[1].inputs["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "user", "content": "Try again."},
    ]


def test_a_policy_may_keep_stored_responses_of_a_classification_from_a_reader(stage: Stage) -> None:
    stage.deployment()
    keep()
    client = stage.client(stage.key())
    headers = {"Assay-Data-Classification": "confidential"}
    secret = client.responses.create(model="writer", input="Hi", extra_headers=headers)
    plain = client.responses.create(model="writer", input="Hi")
    forbid: Any = {
        "id": "confidential-answers",
        "effect": "forbid",
        "description": "Keys read no stored answer about confidential data.",
        "principal": {"kinds": ["key"]},
        "actions": ["response:view"],
        "conditions": [{"attribute": "classification", "operator": "eq", "value": "confidential"}],
    }
    install_rules([*PolicyVersion.objects.get(state="active").rules, forbid])
    stage.notify()
    assert client.responses.retrieve(plain.id).output_text == "Hello there"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(secret.id)


def test_nothing_is_stored_unless_the_department_keeps_responses(stage: Stage) -> None:
    stage.deployment(departments=("engineering", "finance"))
    keep("finance")
    responses = stage.client(stage.key()).responses
    answer: Any = responses.create(model="writer", input="Hi")
    assert answer.store is False
    with pytest.raises(openai.ConflictError) as refused:
        responses.create(model="writer", input="Hi", store=True)
    assert refused.value.code == "responses_not_kept"
    with pytest.raises(openai.NotFoundError):
        responses.retrieve(answer.id)
    finance = stage.client(stage.key("finance")).responses
    assert finance.create(model="writer", input="Hi", store=False).id
    assert not StoredResponse.objects.exists()
    assert finance.create(model="writer", input="Hi").id
    assert StoredResponse.objects.get().department.slug == "finance"


def test_another_departments_response_does_not_exist(stage: Stage) -> None:
    stage.deployment(departments=("engineering", "finance"))
    stage.deployment("other", departments=("engineering",))
    keep()
    keep("finance")
    first = stage.client(stage.key()).responses.create(model="writer", input="Hi")
    narrowed = stage.key(allowed_deployments=["other"])
    for token in (stage.key("finance"), narrowed):
        theirs = stage.client(token).responses
        for ask in (
            lambda theirs=theirs: theirs.retrieve(first.id),
            lambda theirs=theirs: theirs.delete(first.id),
            lambda theirs=theirs: theirs.input_items.list(first.id),
            lambda theirs=theirs: theirs.create(
                model="writer", input="Hi", previous_response_id=first.id
            ),
            lambda theirs=theirs: theirs.retrieve("resp_" + "0" * 32),
            lambda theirs=theirs: theirs.retrieve("resp_%00"),
            lambda theirs=theirs: theirs.create(
                model="writer", input="Hi", previous_response_id="resp_\0"
            ),
        ):
            with pytest.raises(openai.NotFoundError) as unknown:
                ask()
            assert unknown.value.code == "response_not_found"
    assert StoredResponse.objects.filter(pk=first.id).exists()


def test_a_deleted_or_expired_response_ends_its_conversation(stage: Stage) -> None:
    stage.deployment()
    keep()
    token = stage.key()
    responses = stage.client(token).responses
    first = responses.create(model="writer", input="Hi")
    second = responses.create(model="writer", input="Hi", previous_response_id=first.id)
    deleted = stage.client(token).delete(f"/responses/{first.id}", cast_to=object)
    assert deleted == {"id": first.id, "object": "response", "deleted": True}
    assert AuditEvent.objects.filter(action="response:delete", subject_id=first.id).exists()
    with pytest.raises(openai.NotFoundError, match="was deleted or has expired"):
        responses.create(model="writer", input="Hi", previous_response_id=second.id)
    StoredResponse.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(openai.NotFoundError):
        responses.retrieve(second.id)
    assert responses_expire_due() == 1
    assert not StoredResponse.objects.exists()
    event = AuditEvent.objects.get(action="response:expire")
    assert event.department == "engineering"
    assert json.loads(bytes(event.canonical))["data"]["count"] == 1


def test_a_response_without_an_answer_is_failed_and_cannot_be_continued(stage: Stage) -> None:
    def fail(request: InferenceRequest, reply: Any) -> None:
        reply(Failed("engine_error", "The model failed.", 500))

    stage.deployment(behavior=fail)
    keep()
    token = stage.key()
    body = {"model": "writer", "input": "Hi"}
    assert stage.post("/v1/responses", token, json=body).status_code == 500
    wait_until(lambda: StoredResponse.objects.get().state == "failed")
    row = StoredResponse.objects.get()
    assert stage.client(token).responses.retrieve(row.pk).status == "failed"
    again = stage.post("/v1/responses", token, json={**body, "previous_response_id": row.pk})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "response_not_finished")


def test_a_refused_request_stores_nothing(stage: Stage) -> None:
    stage.deployment("secret", departments=("finance",))
    stage.deployment()
    keep()
    token = stage.key()
    body = {"model": "secret", "input": "Hi"}
    assert stage.post("/v1/responses", token, json=body).status_code == 404
    bad = stage.post("/v1/responses", token, json={"model": "writer", "input": "a\0b"})
    assert (bad.status_code, "NUL" in bad.json()["error"]["message"]) == (400, True)
    assert not StoredResponse.objects.exists()


def test_a_request_without_room_in_its_quota_or_queue_stores_nothing(
    stage: Stage, settings: Any
) -> None:
    deployment = stage.deployment()
    keep()
    token = stage.key()
    settings.GATEWAY_QUEUE_MAX = 0
    body = {"model": "writer", "input": "Hi"}
    full = stage.post("/v1/responses", token, json=body)
    assert (full.status_code, full.json()["error"]["code"]) == (503, "queue_full")
    settings.GATEWAY_QUEUE_MAX = 1000
    stage.limit("requests_per_minute", 1)
    stage.notify()
    answers = [stage.post("/v1/responses", token, json=body) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 429, 429]
    assert int(answers[1].headers["retry-after"]) > 0
    assert answers[1].headers["x-assay-limit"] == "department:engineering requests_per_minute"
    assert StoredResponse.objects.count() == 1
    assert AuditEvent.objects.filter(action="response:create").count() == 1
    assert len(stage.responders[0].requests) == 1
    assert stage.redis.llen(deployment_queue(deployment.pk)) == 0


@pytest.mark.django_db(transaction=True)
def test_one_department_does_not_keep_another_from_its_responses(policy: object) -> None:
    async def walk() -> None:
        desk, may_end = ResponseDesk(), threading.Event()

        def ask(department: str) -> Any:
            actor = Principal(kind=PrincipalKind.KEY, id="1", name="app", department=department)
            key = KeyEntry("k", b"", 1, "app", department, math.inf, None, actor, ())
            return desk.run(Call("/v1/responses", ""), key, lambda actor: may_end.wait(PATIENCE_S))

        waiting = [asyncio.create_task(ask("a")) for _ in range(DEPARTMENT_WAITING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await ask("a")
        waiting.append(asyncio.create_task(ask("b")))
        await asyncio.sleep(0)
        may_end.set()
        assert await asyncio.gather(*waiting) == [True] * (DEPARTMENT_WAITING_MAX + 1)
        assert await ask("a")
        await desk.stop()

    asyncio.run(walk())


def test_the_callers_own_words_are_repeated_and_tiers_are_refused(stage: Stage) -> None:
    stage.deployment()
    client = stage.client(stage.key())
    words = {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k"}
    answer = client.responses.create(model="writer", input="Hi", service_tier="auto", **words)  # type: ignore[call-overload]
    assert {name: getattr(answer, name) for name in words} == words
    assert answer.service_tier == "default"
    chat = client.chat.completions.create(  # type: ignore[call-overload]
        model="writer",
        messages=[{"role": "user", "content": "Hi"}],
        service_tier="auto",
        **words,
    )
    assert chat.service_tier == "default"
    for tier in ("flex", "priority"):
        with pytest.raises(openai.BadRequestError, match="service_tier must be auto or default"):
            client.responses.create(model="writer", input="Hi", service_tier=tier)  # type: ignore[call-overload]


def test_a_conversation_keeps_the_highest_classification_of_its_turns(stage: Stage) -> None:
    stage.deployment()
    keep()
    responses = stage.client(stage.key()).responses
    secret = {"Assay-Data-Classification": "confidential"}
    first = responses.create(model="writer", input="Hi", extra_headers=secret)
    later = responses.create(model="writer", input="Hi", previous_response_id=first.id)
    found = StoredResponse.objects.values_list("classification", flat=True)
    assert list(found) == ["confidential", "confidential"]
    contexts = [entry.decision["context"]["classification"] for entry in stage.entries(2)]
    assert contexts == ["confidential", "confidential"]
    assert later.previous_response_id == first.id


def test_a_conversation_is_as_long_as_a_body_may_be(stage: Stage, settings: Any) -> None:
    stage.deployment()
    keep()
    responses = stage.client(stage.key()).responses
    first = responses.create(model="writer", input="a" * 3_000)
    settings.GATEWAY_MAX_BODY_BYTES = 3_000
    with pytest.raises(openai.ConflictError) as refused:
        responses.create(model="writer", input="Hi", previous_response_id=first.id)
    assert refused.value.code == "conversation_too_long"


def test_parameters_of_reading_act_or_are_refused(stage: Stage) -> None:
    stage.deployment()
    keep()
    token = stage.key()
    turns: Any = [{"role": "user", "content": str(number)} for number in range(3)]
    client = stage.client(token)
    made = client.responses.create(model="writer", input=turns)
    page = client.responses.input_items.list(made.id, limit=2)
    assert [item.content[0].text for item in page.data] == ["2", "1"]  # type: ignore[union-attr]
    every = client.responses.input_items.list(made.id, limit=2, order="asc")
    assert [item.content[0].text for item in every] == ["0", "1", "2"]  # type: ignore[union-attr]
    path = f"{stage.url}/v1/responses/{made.id}"
    for asked in ("?stream=true", "/input_items?include=x", "/input_items?limit=0"):
        answer = httpx.get(path + asked, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 400
    assert stage.post(f"/v1/responses/{made.id}", token, json={}).status_code == 405


def test_a_policy_that_forbids_storing_leaves_answers_unstored(stage: Stage) -> None:
    stage.deployment()
    keep()
    token = stage.key()
    install_rules(
        [{"id": "keys-use", "effect": "permit", "description": "keys use deployments",
          "principal": {"kinds": ["key"]}, "actions": ["deployment:invoke"]}]
    )  # fmt: skip
    stage.notify()
    answer: Any = stage.client(token).responses.create(model="writer", input="Hi")
    assert answer.store is False
    refused = stage.post(
        "/v1/responses", token, json={"model": "writer", "input": "Hi", "store": True}
    )
    assert refused.status_code in (403, 404)
    assert not StoredResponse.objects.exists()
