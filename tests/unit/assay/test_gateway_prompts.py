"""Requests to prompt versions: what callers send, what travels, and what is reserved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from assay.gateway.access.prompts import OwnPrompt, add_prompt_tokens, own_prompt
from assay.gateway.access.reading import read_snapshot
from registry.catalog.prompt import PromptDocument
from registry.catalog.requests import Body, RequestInvalid
from registry.versions.models import ModelVersion
from tasks.text_generation.chat import read_chat
from tasks.text_generation.completions import read_completion
from tasks.text_generation.responses import read_responses
from tests.unit.assay.gateway_support import Stage, stage
from workers.deployments.models import Deployment

__all__ = ["stage"]

LONG = "You answer for {{team}}. " + "Be brief. " * 300
DOCUMENT = {
    "system": LONG,
    "variables": [{"name": "team"}],
    "decoding": {"max_tokens": 2_000},
}
ASKED = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}]}


def prompt_behind(made: Deployment, document: Mapping[str, Any] = DOCUMENT) -> None:
    """Make the deployment's version a prompt, as its row and its snapshot have one."""
    version = made.release.version
    base = ModelVersion.objects.create(
        model=version.model,
        number=2,
        kind="base",
        digest="b" * 64,
        manifest={},
        size_bytes=1,
        created_by=version.created_by,
    )
    ModelVersion.objects.filter(pk=version.pk).update(
        kind="prompt",
        base=base,
        parameters=PromptDocument.read(document).model_dump(mode="json"),
    )


def test_variables_travel_to_the_worker_by_the_official_client(stage: Stage) -> None:
    prompt_behind(stage.deployment())
    stage.notify()
    client = stage.client(stage.key())
    client.chat.completions.create(
        **ASKED,
        temperature=1.0,
        extra_body={"prompt_variables": {"team": "Care"}},
    )
    client.responses.create(
        model="writer", input="Hi", prompt={"id": "writer", "variables": {"team": "Care"}}
    )
    chat, response = stage.responders[0].requests
    assert chat.inputs["variables"] == response.inputs["variables"] == {"team": "Care"}
    # The worker fills in; nothing of the prompt passes the gateway.
    assert [message["role"] for message in chat.inputs["messages"]] == ["user"]
    assert chat.options["stated"] == ["temperature"]
    assert "stated" not in response.options


def test_the_prompts_own_length_is_reserved(stage: Stage) -> None:
    made = stage.deployment()
    stage.limit("tokens_per_day", 1_000)
    key = stage.key()
    body = {**ASKED, "max_tokens": 8, "prompt_variables": {"team": "Care"}}
    assert stage.post("/v1/chat/completions", key, json=body).status_code == 200
    prompt_behind(made)
    stage.notify()
    refused = stage.post("/v1/chat/completions", key, json=body)
    assert refused.status_code == 429, refused.text


def plan_of(**changes: Any) -> Any:

    return read_chat(
        Body("application/json", json.dumps({**ASKED, **changes}).encode()), "req_1", ""
    )


def test_a_plan_counts_the_prompt_and_its_longer_answer() -> None:
    own = OwnPrompt(PromptDocument.read(DOCUMENT), virtual_tokens=20)
    plain = plan_of()
    plan = add_prompt_tokens(plain, own)
    added = len(LONG.encode()) // 3
    assert added - 5 < plan.prompt_tokens - plain.prompt_tokens - 20 < added + 5
    assert plan.tokens - plan.prompt_tokens == 2_000
    limited = add_prompt_tokens(plan_of(max_completion_tokens=5), own)
    assert limited.tokens - limited.prompt_tokens == 5
    assert add_prompt_tokens(plain, OwnPrompt()) is plain


def test_virtual_tokens_are_reserved_for_each_prompt_of_a_completion() -> None:
    body = json.dumps({"model": "writer", "prompt": ["a", "b", "c"], "max_tokens": 1}).encode()
    plain = read_completion(Body("application/json", body), "req_1", "")
    plan = add_prompt_tokens(plain, OwnPrompt(virtual_tokens=20))
    assert plan.prompt_tokens - plain.prompt_tokens == plan.tokens - plain.tokens == 60


def test_a_prompt_that_cannot_be_read_does_not_serve(stage: Stage) -> None:
    made = stage.deployment(behavior=None)
    prompt_behind(made)
    assert read_snapshot().deployments["writer"].own_prompt.document is not None
    version = made.release.version
    ModelVersion.objects.filter(pk=version.pk).update(parameters={"system": 1})
    assert "writer" not in read_snapshot().deployments


def test_virtual_tokens_of_a_soft_prompt_count_for_what_stands_on_it_too() -> None:
    soft = ModelVersion(kind="adapter", parameters={"virtual_tokens": 16})
    assert own_prompt(soft).virtual_tokens == 16
    document = PromptDocument.read({"system": "Hi"}).model_dump(mode="json")
    assert own_prompt(ModelVersion(kind="prompt", parameters=document, base=soft)) == OwnPrompt(
        PromptDocument.read({"system": "Hi"}), 16
    )


@pytest.mark.parametrize(
    "variables", [{"1a": "x"}, {"a": 1}, {"a": "x" * 20_001}, {f"a{n}": "" for n in range(33)}]
)
def test_variables_are_bounded_before_anything_is_decided(variables: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid) as refused:
        plan_of(prompt_variables=variables)
    assert str(refused.value.param).startswith("prompt_variables")


def test_a_response_names_its_own_prompt_alone() -> None:
    body = b'{"model": "writer", "input": "Hi", "prompt": {"id": "pmpt_123"}}'
    with pytest.raises(RequestInvalid, match="must be the model"):
        read_responses(Body("application/json", body), "req_1", "")
