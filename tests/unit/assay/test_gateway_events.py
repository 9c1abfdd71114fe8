"""The gateway's audit events: one complete event for every decision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.conf import settings

from assay.gateway.quota.ledger import ANONYMOUS_PER_S
from governance.audit.models import AuditEvent
from governance.audit.personal import opened_body
from governance.audit.selectors import audit_events_visible_to
from governance.principals import Principal
from governance.usage.collector import collect_once
from tests.unit.assay.gateway_support import Stage, stage
from tests.waiting import wait_until

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
CHAT = "/v1/chat/completions"
# Takes no images, so its bodies are small.
TEXTS = "/v1/classify"
HI = [{"role": "user", "content": "Hi"}]
GOOD = {"model": "writer", "messages": HI}
JSON = {"content-type": "application/json"}


def event_of(stage: Stage, response: httpx.Response) -> tuple[AuditEvent, dict[str, Any]]:
    """The one event of that request, and what it recorded."""
    request_id = response.headers["x-request-id"]
    found: list[AuditEvent] = []

    def arrived() -> bool:
        collect_once(stage.redis, consumer="test", block_ms=50)
        found[:] = AuditEvent.objects.filter(request_id=request_id)
        return bool(found)

    wait_until(arrived)
    (event,) = found
    return event, opened_body(event)


def test_every_answer_and_every_refusal_is_one_whole_event(stage: Stage) -> None:
    stage.deployment()
    stage.deployment("idle", departments=("engineering",), ready=False, behavior=None)
    token = stage.key()
    narrow = stage.key(allowed_deployments=["another"])
    huge = b"[" + b" " * settings.GATEWAY_MAX_BODY_BYTES + b"]"
    asked: list[tuple[httpx.Response, int, str, str]] = [
        (stage.post(CHAT, token, json=GOOD), 200, "allowed", ""),
        (stage.post(CHAT, token, content=b"{", headers=JSON), 400, "denied", "JSON"),
        (stage.post(CHAT, narrow, json=GOOD), 403, "denied", "limited to another"),
        (stage.post(CHAT, token, json={**GOOD, "model": "nobody"}), 404, "denied", "nobody"),
        (stage.post(TEXTS, token, content=huge, headers=JSON), 413, "denied", "limit of"),
        (stage.post(CHAT, token, content=b"{}", headers={"content-type": "a/b"}), 415, "denied",
         "as JSON"),
        (stage.post(CHAT, token, json={**GOOD, "model": "idle"}), 503, "denied", "no ready"),
    ]  # fmt: skip
    stage.limit("requests_per_minute", 1)
    stage.post(CHAT, token, json=GOOD)
    asked.append((stage.post(CHAT, token, json=GOOD), 429, "denied", "limited to 1 request"))
    for response, status, outcome, why in asked:
        assert response.status_code == status, response.text
        event, body = event_of(stage, response)
        assert (event.action, event.outcome) == ("deployment:invoke", outcome), status
        department = "" if status == 404 else "engineering"
        assert (event.actor_kind, event.department) == ("key", department), status
        assert event.policy_version == 1, status
        assert all((event.subject_id, event.subject_name)), status
        assert why in event.reason, (status, event.reason)
        assert body["client_address"] == "127.0.0.1"


def test_looking_at_the_models_is_a_decision_too(stage: Stage) -> None:
    stage.deployment()
    token = stage.key()
    for path, status, outcome, subject in (
        ("/v1/models", 200, "allowed", "/v1/models"),
        ("/v1/models/writer", 200, "allowed", "writer"),
        ("/v1/models/nothing", 404, "denied", "nothing"),
    ):
        response = httpx.get(f"{stage.url}{path}", headers={"authorization": f"Bearer {token}"})
        assert response.status_code == status
        event, _ = event_of(stage, response)
        assert (event.action, event.outcome) == ("deployment:view", outcome)
        assert (event.subject_id, event.policy_version) == (subject, 1)
        assert event.department == ("" if status == 404 else "engineering")


def test_of_what_the_caller_may_not_know_the_log_says_what_was_decided(stage: Stage) -> None:
    stage.deployment()
    response = stage.post(CHAT, stage.key("finance"), json=GOOD)
    assert response.status_code == 404
    told = response.text + str(response.headers).lower()
    assert "x-assay-" not in told
    assert "d" * 64 not in told
    event, body = event_of(stage, response)
    assert (event.outcome, event.policy_version) == ("denied", 1)
    assert body["data"]["decision"]["resource"]["name"] == "writer"
    assert body["data"]["decision"]["allowed"] is False


def test_a_lead_reads_in_the_log_nothing_that_the_gateway_hid_from_their_key(
    stage: Stage, actor: Callable[..., Principal]
) -> None:
    """Neither what it is nor that it is there: a model that there is not looks the same."""
    stage.deployment()
    token = stage.key("finance")
    lead, auditor = actor("Lea", "lead@finance"), actor("Asha", "auditor")
    for model in ("writer", "nothing"):
        response = stage.post(CHAT, token, json={**GOOD, "model": model})
        assert response.status_code == 404
        event, _ = event_of(stage, response)
        assert event not in audit_events_visible_to(lead)
        assert event in audit_events_visible_to(auditor)


def test_a_stranger_is_recorded_with_the_address_and_a_flood_of_them_is_counted(
    stage: Stage,
) -> None:
    stage.notify()
    first = httpx.post(f"{stage.url}{CHAT}", json=GOOD)
    event, body = event_of(stage, first)
    assert (event.actor_kind, event.outcome) == ("anonymous", "denied")
    assert (event.subject_type, event.subject_id) == ("endpoint", CHAT)
    assert body["client_address"] == "127.0.0.1"
    assert "API key" in event.reason

    flood = 6 * ANONYMOUS_PER_S
    with httpx.Client() as client:
        for _ in range(flood):
            assert client.post(f"{stage.url}{CHAT}", json=GOOD).status_code == 401
    events = AuditEvent.objects.filter(actor_kind="anonymous")

    def counted() -> int:
        collect_once(stage.redis, consumer="test", block_ms=50)
        others = (event.reason.partition(" more were")[0] for event in events.all())
        return events.count() + sum(int(text.rpartition("(")[2]) for text in others if "(" in text)

    wait_until(lambda: counted() == flood + 1)
