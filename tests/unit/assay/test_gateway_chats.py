"""Stored chats through the official client: where the department keeps responses, and its own."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from governance.audit.models import AuditEvent
from registry.responses.models import StoredResponse
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.test_gateway_responses import keep
from workers.wire import Failed, InferenceRequest

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
HI: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def ask(client: openai.OpenAI, **more: Any) -> Any:
    options = {"model": "writer", "messages": HI, "store": True, **more}
    return client.chat.completions.create(**options)


def test_a_stored_chat_is_read_listed_labeled_and_deleted(stage: Stage) -> None:
    stage.deployment()
    keep()
    client = stage.client(stage.key())
    chats = client.chat.completions
    first = ask(client, metadata={"topic": "greeting"})
    chunks = list(ask(client, stream=True, n=2))
    second = chats.retrieve(chunks[0].id)
    assert second.choices[0].message.content == "Hello there"
    assert [choice.finish_reason for choice in second.choices] == ["stop", "stop"]
    found: Any = chats.retrieve(first.id)
    assert (found.choices, found.usage) == (first.choices, first.usage)
    assert found.metadata == {"topic": "greeting"}
    assert [chat.id for chat in chats.list()] == [first.id, second.id]
    assert [chat.id for chat in chats.list(limit=1, order="desc")] == [second.id, first.id]
    assert [chat.id for chat in chats.list(metadata={"topic": "greeting"})] == [first.id]
    assert chats.list(model="other").data == []
    loose = stage.client(client.api_key, strict=False).chat.completions
    messages = loose.messages.list(first.id, limit=1)
    assert [(each.role, each.content) for each in messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]
    newest = loose.messages.list(first.id, order="desc")
    assert [each.role for each in newest] == ["user", "system"]
    changed: Any = chats.update(first.id, metadata={"topic": "other", "seen": "yes"})
    assert changed.metadata == {"topic": "other", "seen": "yes"}
    assert chats.update(first.id, metadata=None).metadata == {}  # type: ignore[attr-defined]
    assert chats.delete(first.id).deleted
    with pytest.raises(openai.NotFoundError):
        chats.retrieve(first.id)
    actions = AuditEvent.objects.filter(subject_id=first.id).order_by("pk")
    assert [event.action for event in actions] == [
        "response:create",
        "response:update",
        "response:update",
        "response:delete",
    ]


def test_chats_are_stored_only_on_request_and_where_the_department_keeps_responses(
    stage: Stage,
) -> None:
    stage.deployment(departments=("engineering", "finance"))
    keep("finance")
    client = stage.client(stage.key())
    with pytest.raises(openai.ConflictError) as refused:
        ask(client)
    assert refused.value.code == "responses_not_kept"
    finance = stage.client(stage.key("finance"))
    assert ask(finance, store=False).id
    assert ask(finance, store=None).id
    assert not StoredResponse.objects.exists()
    with pytest.raises(openai.BadRequestError, match="metadata requires store"):
        ask(finance, store=None, metadata={"a": "b"})
    with pytest.raises(openai.BadRequestError):
        ask(finance, metadata={"a": 1})
    with pytest.raises(openai.BadRequestError, match="NUL"):
        ask(finance, metadata={"a": "\0"})


def test_another_departments_chat_does_not_exist(stage: Stage) -> None:
    stage.deployment(departments=("engineering", "finance"))
    stage.deployment("other", departments=("engineering",))
    keep()
    keep("finance")
    owner = stage.client(stage.key())
    made = ask(owner)
    for token in (stage.key("finance"), stage.key(allowed_deployments=["other"])):
        client = stage.client(token)
        chats = client.chat.completions
        assert chats.list().data == []
        for look in (
            lambda chats=chats: chats.retrieve(made.id),
            lambda chats=chats: chats.delete(made.id),
            lambda chats=chats: chats.update(made.id, metadata={}),
            lambda chats=chats: chats.messages.list(made.id),
            lambda chats=chats: chats.retrieve("chatcmpl-%00"),
        ):
            with pytest.raises(openai.NotFoundError):
                look()
        with pytest.raises(openai.BadRequestError):
            chats.list(after=made.id)
    # A chat is no response, which could be continued.
    for name in (made.id, "resp_" + made.id[9:]):
        with pytest.raises(openai.NotFoundError):
            owner.responses.create(model="writer", input="Hi", previous_response_id=name)
    assert owner.chat.completions.retrieve(made.id).id == made.id


def test_requests_on_stored_chats_are_bounded(stage: Stage) -> None:
    stage.deployment()
    keep()
    token = stage.key()
    made = ask(stage.client(token))
    path = f"/v1/chat/completions/{made.id}"
    for body in ({}, {"metadata": 1}, {"metadata": {"a": "\0"}}, {"metadata": {}, "more": 1}):
        assert stage.post(path, token, json=body).status_code == 400, body
    client = stage.client(token)
    for query in ({"limit": 0}, {"order": "up"}, {"more": "1"}, {"metadata[]": "a"}):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.list(extra_query=query)
    assert client.chat.completions.list(extra_query={"model": "\0", "metadata[a]": "\0"}).data == []
    assert stage.post(f"{path}/messages", token, json={}).status_code == 405


def test_a_chat_without_an_answer_is_not_there(stage: Stage) -> None:
    def fail(request: InferenceRequest, reply: Any) -> None:
        reply(Failed("engine_error", "The model failed.", 500))

    stage.deployment(behavior=fail)
    keep()
    client = stage.client(stage.key())
    with pytest.raises(openai.InternalServerError):
        ask(client)
    row = StoredResponse.objects.get()
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(row.pk)
    assert client.chat.completions.list().data == []
