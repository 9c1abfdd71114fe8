"""The page of the log's heads, and the alarms above the pages of those who see the whole log."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from governance.audit.alarms import alarms_check
from governance.audit.cosignature import Witness
from governance.audit.models import AuditAlarm, AuditCheckpoint, AuditCosignature, AuditKeeper
from governance.audit.outside.places import Folder
from governance.audit.outside.second_place import second_place
from governance.audit.sealer import seal_once
from tests.unit.assay.portal_data import Company
from tests.unit.governance.witness_server import WitnessServer

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


@pytest.fixture
def company(company: Company, settings: Any, tmp_path: Any) -> Company:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return company


def signed_in(person: Any) -> Client:
    client = Client()
    client.force_login(person)
    return client


def text_of(client: Client, address: str) -> str:
    page = client.get(address)
    assert page.status_code == 200, address
    return " ".join(re.sub(r"<[^>]*>", " ", page.content.decode()).split())


def test_the_page_says_when_each_head_was_published_and_who_keeps_it(company: Company) -> None:
    auditor = signed_in(company.asha)
    assert "never reached" in text_of(auditor, "/audit/checkpoints")
    seal_once()
    head = AuditCheckpoint.objects.latest("id")
    said = text_of(auditor, "/audit/checkpoints")
    assert "Published" in said
    assert f"{head.published_at:%H:%M:%S}, within a second" in said
    assert f"{second_place().name} Second place · {head.tree_size} events" in said
    assert "Publish lag 0.0 s" in said
    assert "Cosigned" not in said  # Nobody is asked to.


def test_the_page_says_who_cosigned_and_whose_history_is_another(
    company: Company, settings: Any
) -> None:
    seal_once()
    head = AuditCheckpoint.objects.latest("id")
    one, two = WitnessServer("witness.example/one"), WitnessServer("witness.example/two")
    settings.AUDIT_WITNESSES = [one.setting, two.setting]
    at = datetime(2026, 11, 25, 12, 0, 5, tzinfo=UTC)
    keys = [str(Witness.from_text(server.vkey)) for server in (one, two)]
    AuditCosignature.objects.create(checkpoint=head, witness=keys[0], line="— line", cosigned_at=at)
    common = {"kind": AuditKeeper.Kind.WITNESS, "tried_at": at}
    AuditKeeper.objects.create(key=keys[0], size=head.tree_size, reached_at=at, **common)
    AuditKeeper.objects.create(key=keys[1], contradicts=True, fault="it saw a fork.", **common)
    auditor = signed_in(company.asha)
    said = text_of(auditor, "/audit/checkpoints")
    assert "witness.example/one 25 Nov, 12:00:05" in said
    assert (
        "witness.example/two Witness · never reached Has a different history: it saw a fork."
        in said
    )
    with CaptureQueriesContext(connection) as few:
        auditor.get("/audit/checkpoints")
    for more in range(1, 20):
        another = AuditCheckpoint.objects.create(
            tree_size=head.tree_size + more, root_hash=bytes(32), frontier=b"", note="n"
        )
        AuditCosignature.objects.create(
            checkpoint=another, witness=keys[0], line="— line", cosigned_at=at
        )
    with CaptureQueriesContext(connection) as many:
        auditor.get("/audit/checkpoints")
    assert len(many) == len(few)
    answer = auditor.get("/api/v1/audit/checkpoints").json()
    (cosigned,) = answer["results"][-1]["cosignatures"]
    assert (cosigned["witness"], cosigned["line"]) == (keys[0], "— line")


def test_an_alarm_is_shown_to_who_sees_the_whole_log(company: Company, settings: Any) -> None:
    seal_once()
    Folder(settings.AUDIT_PUBLISH_DIR).put_checkpoint(b"nonsense")
    while seal_once():
        pass
    # The event of the page itself is sealed next, and then compared with the published checkpoints.
    signed_in(company.devi).post("/audit/verify")
    seal_once()
    alarms_check()
    assert AuditAlarm.objects.filter(name="publishing_contradicted").exists()
    for who in ("ada", "omar", "asha"):
        for address in ("/", "/audit", "/audit/checkpoints"):
            said = text_of(signed_in(company.people[who]), address)
            assert "The published log has a different history" in said, (who, address)
            assert "is not a signed note" in said
    for who, address in (("devi", "/"), ("clara", "/"), ("clara", "/audit"), ("carla", "/")):
        assert "different history" not in text_of(signed_in(company.people[who]), address), who
