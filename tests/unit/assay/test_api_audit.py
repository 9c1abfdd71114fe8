"""The audit log through the API: filtered, exported, verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import AsyncClient

from governance.audit.models import AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.tree.proof_files import check_proof
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
    report = verify_export(lines, public_keys=header["public_keys"])
    assert report.ok, report.message
    assert report.events == len(lines) - 1 > 0
    assert AuditEvent.objects.filter(action="audit:export", outcome="allowed").count() == 1


def test_the_checkpoint_is_the_signed_note(auditor: Api) -> None:
    problem_of(auditor.get("audit/checkpoint"), 404)
    seal_once()

    answer = auditor.get("audit/checkpoint")

    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.content.decode().startswith("assay")


def test_an_event_is_shown_with_its_bytes_and_proved(auditor: Api) -> None:
    event = AuditEvent.objects.latest("id")
    early = problem_of(auditor.get(f"audit/events/{event.pk}/proof"), 409)
    assert "not sealed yet" in early["detail"]
    seal_once()

    one = auditor.get(f"audit/events/{event.pk}").body
    proof = auditor.get(f"audit/events/{event.pk}/proof").body

    assert json.loads(one["canonical"])["action"] == one["action"] == event.action
    assert proof["canonical"] == one["canonical"]
    assert "is in the log" in check_proof(proof, public_keys=proof["public_keys"])
    problem_of(auditor.get("audit/events/999999999"), 404)
    problem_of(auditor.get("audit/events/999999999/proof"), 404)


def test_a_checkpoint_that_was_kept_is_proved_to_be_the_beginning(auditor: Api) -> None:
    problem_of(auditor.get("audit/consistency", old="1"), 409)
    seal_once()
    kept = auditor.get("audit/checkpoint").content.decode()
    lines_of(auditor.get("audit/export"))
    seal_once()

    heads = auditor.get("audit/checkpoints").body["results"]
    size = kept.split("\n")[1]
    proof = auditor.get("audit/consistency", old=size).body

    assert [head["note"] for head in heads] == [
        auditor.get("audit/checkpoint").content.decode(),
        kept,
    ]
    assert "only grew" in check_proof(proof, public_keys=proof["public_keys"], earlier_note=kept)
    for wrong in ({}, {"old": "x"}, {"old": "-1"}, {"old": str(10**30)}, {"old": "1", "more": "1"}):
        problem_of(auditor.get("audit/consistency", **wrong), 400)
    backwards = auditor.get("audit/consistency", old=str(heads[0]["tree_size"]), new=size)
    assert "cannot have grown" in problem_of(backwards, 400)["detail"]


def test_a_department_reads_and_proves_its_own_events_and_no_others(
    auditor: Api, person: Callable[..., Person]
) -> None:
    lead = Api(person("Lea", "lead@clinical"))
    seal_once()
    theirs = AuditEvent.objects.exclude(department="clinical").latest("id")

    problem_of(lead.get(f"audit/events/{theirs.pk}"), 404)
    problem_of(lead.get(f"audit/events/{theirs.pk}/proof"), 404)
    assert lead.get("audit/checkpoints").status_code in {403, 404}
    assert lead.get("audit/consistency", old="1").status_code in {403, 404}


def test_an_event_whose_bytes_were_changed_is_shown_and_not_proved(auditor: Api) -> None:
    seal_once()
    event = AuditEvent.objects.latest("id")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE governance_auditevent DISABLE TRIGGER USER")
    AuditEvent.objects.filter(pk=event.pk).update(canonical=b"\xff\x00")

    assert auditor.get(f"audit/events/{event.pk}").status_code == 200
    refused = problem_of(auditor.get(f"audit/events/{event.pk}/proof"), 409)
    assert "contradicts the signed checkpoint" in refused["detail"]


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
