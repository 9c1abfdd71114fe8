"""Refusals: the status, one shape, a sentence that helps, and nothing started."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from django.conf import settings
from django.utils import timezone

from assay.gateway.quota.ledger import ANONYMOUS_PER_S
from governance.keys.models import ApiKey
from governance.quotas.store import read_counts
from governance.usage.records import USAGE_STREAM
from registry.releases.models import Release
from registry.versions.models import ModelVersion, VersionKind
from tests.unit.assay.gateway_support import Stage, stage
from workers.wire import Delta, Done, Failed

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
CHAT = "/v1/chat/completions"
# Takes no images, so its bodies are small.
TEXTS = "/v1/classify"
HI = [{"role": "user", "content": "Hi"}]
GOOD = {"model": "writer", "messages": HI}


def error_of(response: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = response.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req_")
    return body


BAD_BODIES = [
    ("{", "invalid_json", None),
    ("[]", "invalid_json", None),
    ("[" * 40_000, "invalid_json", None),
    ("[" * 100_000, "too_many_values", None),
    ('{"model":"writer","messages":[{"role":"user","content":"\\ud800"}]}', "invalid_json", None),
    (json.dumps({"messages": HI}), "missing_parameter", "model"),
    (json.dumps({**GOOD, "model": 7}), "invalid_value", "model"),
    (json.dumps({**GOOD, "messages": []}), "invalid_value", "messages"),
    (json.dumps({**GOOD, "messages": "Hi"}), "invalid_value", "messages"),
    (json.dumps({**GOOD, "color": "red"}), "unknown_parameter", "color"),
    (json.dumps({**GOOD, **{f"x{i}": i for i in range(2000)}}), "invalid_value", None),
    (json.dumps({**GOOD, "functions": []}), "unsupported_parameter", "functions"),
    (
        json.dumps({**GOOD, "tools": [{"type": "function"}]}),
        "missing_parameter",
        "tools[0].function",
    ),
    (json.dumps({**GOOD, "logprobs": 1}), "invalid_value", "logprobs"),
    (json.dumps({**GOOD, "n": 17}), "invalid_value", "n"),
    (
        json.dumps({**GOOD, "response_format": {"type": "xml"}}),
        "unsupported_value",
        "response_format.type",
    ),
    (json.dumps({**GOOD, "temperature": "hot"}), "invalid_value", "temperature"),
    (json.dumps({**GOOD, "temperature": 2.5}), "invalid_value", "temperature"),
    ('{"model":"writer","messages":[],"temperature":NaN}', "invalid_value", "temperature"),
    (json.dumps({**GOOD, "max_tokens": 0}), "invalid_value", "max_tokens"),
    (json.dumps({**GOOD, "max_tokens": True}), "invalid_value", "max_tokens"),
    (json.dumps({**GOOD, "stop": ["a"] * 5}), "invalid_value", "stop"),
    (
        json.dumps({**GOOD, "messages": [{"role": "tool", "content": "x"}]}),
        "invalid_value",
        "messages[0]",
    ),
    (
        json.dumps({**GOOD, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        "unsupported_value",
        "messages[0].content[0].type",
    ),
]


def test_a_bad_body_is_refused_by_the_name_of_what_is_wrong(stage: Stage) -> None:
    stage.deployment()
    token = stage.key()
    json_type = {"content-type": "application/json"}
    for body, code, param in BAD_BODIES:
        response = stage.post(CHAT, token, content=body, headers=json_type)
        assert response.status_code == 400, body
        error = error_of(response)
        assert (error["code"], error["param"]) == (code, param), (body, error)
        assert error["type"] == "invalid_request_error"
    assert stage.responders[0].requests == []


def test_a_body_of_another_type_or_size_is_refused(stage: Stage) -> None:
    token = stage.key()
    plain = stage.post(CHAT, token, content=b"{}", headers={"content-type": "text/plain"})
    assert (plain.status_code, error_of(plain)["code"]) == (415, "unsupported_media_type")
    huge = json.dumps({"pad": "x" * settings.GATEWAY_MAX_BODY_BYTES}).encode()
    json_type = {"content-type": "application/json"}
    declared = stage.post(TEXTS, token, content=huge, headers=json_type)
    assert (declared.status_code, error_of(declared)["code"]) == (413, "too_large")
    chunks = (huge[start : start + 65_536] for start in range(0, len(huge), 65_536))
    try:
        chunked = stage.post(TEXTS, token, content=chunks, headers=json_type)
    except httpx.WriteError:
        return  # The gateway hung up on the rest of it, which is as good.
    assert chunked.status_code == 413


def test_bytes_without_a_type_are_a_file_where_files_are_taken(stage: Stage) -> None:
    token = stage.key()
    image = stage.post("/v1/tasks/image-classification/nobody", token, content=b"\x89PNG")
    assert (image.status_code, error_of(image)["code"]) == (404, "model_not_found")
    text = stage.post(CHAT, token, content=b"{}")
    assert (text.status_code, error_of(text)["code"]) == (415, "unsupported_media_type")


def test_unknown_paths_and_methods_are_named(stage: Stage) -> None:
    unknown = httpx.post(f"{stage.url}/v1/images/variations", json={})
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "unknown_url")
    wrong = httpx.get(f"{stage.url}{TEXTS}")
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    owned = httpx.put(f"{stage.url}/v1/files")
    assert (owned.status_code, owned.headers["allow"]) == (405, "GET, POST")


def test_unknown_paths_of_the_messages_api_are_refused_in_its_format(stage: Stage) -> None:
    unknown = httpx.post(f"{stage.url}/v1/messages/batches", json={"requests": []})
    assert unknown.status_code == 404
    body = unknown.json()
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    assert "Use POST /v1/batches with the endpoint /v1/messages." in body["error"]["message"]
    for path in ("/v1/images/edits", "/v1/images/variations"):
        refused = error_of(httpx.post(f"{stage.url}{path}", json={}))
        assert "use POST /v1/images/generations." in refused["message"]


def test_a_key_that_proves_nothing_is_refused(stage: Stage) -> None:
    token = stage.key()
    body, _, checksum = token.rpartition("_")
    mistyped = f"{body}_{checksum[:-1]}{'0' if checksum[-1] != '0' else '1'}"
    for authorization in (None, "", "Basic eA==", "Bearer", f"Bearer {mistyped}", "Bearer sk-1"):
        headers = {} if authorization is None else {"authorization": authorization}
        response = httpx.post(f"{stage.url}{CHAT}?api_key={token}", json=GOOD, headers=headers)
        assert response.status_code == 401, authorization
        assert error_of(response)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"].startswith("Bearer")
    with pytest.raises(openai.AuthenticationError):
        stage.client(mistyped).models.list()


def test_an_unknown_an_expired_and_a_personal_key_are_refused(stage: Stage) -> None:
    stranger = stage.key()
    ApiKey.objects.all().delete()
    past = timezone.now() - timedelta(hours=1)
    expired = stage.key()
    ApiKey.objects.update(created_at=past - timedelta(hours=1), expires_at=past)
    personal = stage.key(None)
    said = {
        name: error_of(stage.post(CHAT, token, json=GOOD))["message"]
        for name, token in {"s": stranger, "e": expired, "p": personal}.items()
    }
    assert said["s"] == "Incorrect API key provided."
    assert "is expired" in said["e"]
    assert "personal access token" in said["p"]


def test_a_revoked_key_is_dead_as_soon_as_it_is_told(stage: Stage) -> None:
    stage.deployment()
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    ApiKey.objects.update(revoked_at=timezone.now())
    stage.notify()
    response = stage.post(CHAT, token, json=GOOD)
    assert response.status_code == 401
    assert "is revoked" in error_of(response)["message"]
    refused = stage.entries(2)[-1]
    assert (refused.outcome, refused.ran, refused.key_name) == ("invalid_api_key", False, "tests")


def test_another_departments_deployment_does_not_exist(stage: Stage) -> None:
    stage.deployment()
    response = stage.post(CHAT, stage.key("finance"), json=GOOD)
    assert (response.status_code, error_of(response)["code"]) == (404, "model_not_found")
    invented = stage.post(CHAT, stage.key("finance"), json={**GOOD, "model": "nowhere"})
    assert (
        error_of(response)["message"].replace("writer", "nowhere")
        == (error_of(invented)["message"])
    )


def test_a_deployment_that_may_be_seen_but_not_used_is_refused_with_the_reason(
    stage: Stage,
) -> None:
    stage.deployment(visibility="organization")
    response = stage.post(CHAT, stage.key("finance"), json=GOOD)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (403, "policy_denied")
    assert "finance may not use deployment writer" in error["message"]
    (entry,) = stage.entries()
    assert (entry.outcome, entry.ran, entry.department) == ("policy_denied", False, "finance")
    assert (entry.policy_version, entry.reason) == (1, error["message"])
    assert stage.responders[0].requests == []


def test_an_expired_or_recalled_release_serves_nobody(stage: Stage) -> None:
    stage.deployment()
    token = stage.key()
    for change in ({"expires_at": timezone.now()}, {"state": "recalled"}):
        Release.objects.update(**change)
        stage.notify()
        response = stage.post(CHAT, token, json=GOOD)
        error = error_of(response)
        assert (response.status_code, error["code"]) == (403, "release_not_servable")


def test_what_stands_on_a_recalled_base_serves_nobody(stage: Stage) -> None:
    version = stage.deployment().release.version
    token = stage.key()
    base = ModelVersion.objects.create(
        model=version.model,
        number=2,
        kind=VersionKind.BASE,
        digest="e" * 64,
        manifest={},
        size_bytes=1,
        created_by=stage.person,
        state="recalled",
    )
    ModelVersion.objects.filter(pk=version.pk).update(base=base, kind=VersionKind.ADAPTER)
    stage.notify()
    response = stage.post(CHAT, token, json=GOOD)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (403, "release_not_servable")
    assert "v2 is recalled" in error["message"]


def test_the_wrong_endpoint_names_the_right_one(stage: Stage) -> None:
    stage.deployment("sentiment", task="text-classification")
    response = stage.post(CHAT, stage.key(), json={**GOOD, "model": "sentiment"})
    assert response.status_code == 400
    assert "/v1/classify" in error_of(response)["message"]


def test_without_a_ready_replica_the_client_is_told_when_to_come_back(stage: Stage) -> None:
    stage.deployment(ready=False)
    response = stage.post(CHAT, stage.key(), json=GOOD)
    assert (response.status_code, error_of(response)["code"]) == (503, "no_ready_replica")
    assert int(response.headers["retry-after"]) >= 1
    assert stage.responders[0].requests == []


def test_what_the_engine_refuses_reaches_the_client_with_its_status(stage: Stage) -> None:
    stage.deployment(
        behavior=lambda request, reply: reply(
            Failed("context_length_exceeded", "The prompt has 9,000 tokens.", 400)
        )
    )
    client = stage.client(stage.key())
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=r"9,000 tokens"):
            client.chat.completions.create(model="writer", messages=HI, stream=stream)
    assert {entry.ran for entry in stage.entries(2)} == {False}


LATE = Failed("schema_too_complex", "Simplify its schema.", 400, 9, 40, 7, 49)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_refused_before_a_byte_of_it_was_sent_costs_nothing(
    stage: Stage, stream: bool
) -> None:
    """Computed work counts on limits per minute, so that refusals are no free work."""
    stage.deployment(behavior=lambda request, reply: reply(LATE))
    stage.limit("tokens_per_minute", 10_000)
    stage.limit("tokens_per_day", 10_000)
    refused = stage.post(CHAT, stage.key(), json={**GOOD, "stream": stream})
    assert (refused.status_code, error_of(refused)["code"]) == (400, "schema_too_complex")
    (entry,) = stage.entries()
    assert (entry.outcome, entry.ran, entry.units) == ("schema_too_complex", False, 0)
    assert (entry.cost_micro, entry.device_ms, entry.prompt_tokens) == (0, 0, 0)
    kinds = ("tokens_per_minute", "tokens_per_day")
    counts = read_counts([("department:engineering", kind) for kind in kinds]).counts
    assert [(count.used, count.reserved) for count in counts] == [(49, 0), (0, 0)]


def test_a_stream_that_is_refused_after_its_beginning_costs_what_was_sent(stage: Stage) -> None:
    def behavior(request: Any, reply: Any) -> None:
        reply(Delta("Hello", 1))
        reply(LATE)

    stage.deployment(behavior=behavior)
    answer = stage.post(CHAT, stage.key(), json={**GOOD, "stream": True})
    assert answer.status_code == 200
    assert "schema_too_complex" in answer.text
    (entry,) = stage.entries()
    assert (entry.outcome, entry.ran, entry.units, entry.device_ms) == ("failed", True, 49, 7)


def test_a_request_that_does_not_fit_what_was_computed_costs_nothing(stage: Stage) -> None:
    stage.deployment(
        "vectors",
        task="embeddings",
        behavior=lambda request, reply: reply(Done("stop", 5, 0, results=[[1.0, 0.0]], units=5)),
    )
    body = {"model": "vectors", "input": "a", "dimensions": 3}
    refused = stage.post("/v1/embeddings", stage.key(), json=body)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "dimensions")
    (entry,) = stage.entries()
    assert (entry.ran, entry.units, entry.cost_micro) == (False, 0, 0)


def test_strangers_cannot_flood_the_log(stage: Stage) -> None:
    began = time.monotonic()
    with httpx.Client() as client:
        for _ in range(40):
            client.get(f"{stage.url}/v1/models")
    seconds = time.monotonic() - began
    stage.entries(10)
    assert stage.redis.xlen(USAGE_STREAM) <= ANONYMOUS_PER_S * (2 + int(seconds))


def test_a_snapshot_too_old_to_decide_by_fails_closed(stage: Stage, settings: Any) -> None:
    stage.deployment()
    token = stage.key()
    settings.GATEWAY_SNAPSHOT_TTL_S = 0
    response = stage.post(CHAT, token, json=GOOD)
    assert (response.status_code, error_of(response)["code"]) == (503, "unavailable")
    assert "retry-after" in response.headers
