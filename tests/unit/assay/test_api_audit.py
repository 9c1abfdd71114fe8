"""The audit log through the API: filtered, exported, verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import AsyncClient

from governance.audit.models import AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.verify import verify_export
from governance.people.models import Person
from tests.unit.assay.api_support import Api, problem_of


@pytest.fixture
def auditor(policy: object, redis: object, person: Callable[..., Person]) -> Api:
    return Api(person("Asha", "auditor"))


def lines_of(response: Any) -> list[str]:
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    text = b"".join(response.streaming_content).decode()
    return text.splitlines()


def test_the_export_verifies_and_is_itself_audited(auditor: Api) -> None:
    seal_once()

    lines = lines_of(auditor.get("audit/export"))

    header = json.loads(lines[0])
    report = verify_export(lines, public_key=header["public_key"])
    assert report.ok, report.message
    assert report.events == len(lines) - 1 > 0
    assert AuditEvent.objects.filter(action="audit:export", outcome="allowed").count() == 1


def test_the_checkpoint_is_the_signed_note(auditor: Api) -> None:
    problem_of(auditor.get("audit/checkpoint"), 404)
    seal_once()

    answer = auditor.get("audit/checkpoint")

    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.content.decode().startswith("assay")


def test_events_are_filtered(auditor: Api) -> None:
    everything = auditor.get("audit/events").body["results"]
    some = auditor.get("audit/events", action="key:create").body["results"]
    none = auditor.get("audit/events", outcome="denied").body["results"]

    assert len(everything) > len(some) == 1
    assert some[0]["actor"] == {"kind": "person", "id": some[0]["actor"]["id"], "name": "Asha"}
    assert some[0]["subject"]["type"] == "key"
    assert len(some[0]["leaf_hash"]) == 64
    assert none == []
    problem_of(auditor.get("audit/events", since="yesterday"), 400)
    problem_of(auditor.get("audit/events", outcome="maybe"), 400)


def test_who_may_not_audit_gets_neither_events_nor_export(
    auditor: Api, person: Callable[..., Person]
) -> None:
    viewer = Api(person("Vera", "viewer@clinical"))

    assert viewer.get("audit/export").status_code in {403, 404}
    assert viewer.get("audit/checkpoint").status_code in {403, 404}
    assert viewer.get("audit/events").body["results"] == []


@pytest.mark.django_db(transaction=True)
async def test_under_asgi_the_export_streams(auditor: Api) -> None:
    response: Any = await AsyncClient().get(
        "/api/v1/audit/export", headers={"authorization": f"Bearer {auditor.token}"}
    )

    assert response.is_async
    chunks = [chunk async for chunk in response.streaming_content]
    assert json.loads(chunks[0].splitlines()[0])["format"].startswith("assay-audit-export")
