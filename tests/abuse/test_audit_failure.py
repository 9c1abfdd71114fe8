"""No change without its record: when the audit log takes no more rows, nothing is done, whoever
asks and by whichever endpoint.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client

from governance.audit.models import AuditEvent
from governance.usage.collector import collect_once
from governance.usage.models import UsageRecord
from governance.usage.records import USAGE_STREAM
from tests.abuse.company import INSIDERS, address_book, browser, caller, values
from tests.abuse.database import digests, failing_inserts, said_digests, undone
from tests.abuse.surface import JSON, body_of, filled, operations, said, send
from tests.abuse.test_replay import entry
from tests.unit.assay.portal_data import PASSWORD, Company

AUDIT = "governance_auditevent"


@pytest.mark.sweep
def test_no_endpoint_changes_anything_without_its_record(company: Company) -> None:
    """Every request that changes something while the log works changes nothing while it does not,
    and is answered by an error that tells no details."""
    book, known = address_book(company), values(company)
    # Those who may do most come first. Keys are left out: the same services serve them.
    most = ("an admin", "a lead of engineering", "a developer of engineering")
    names = dict.fromkeys((*most, *(name for name in INSIDERS if "key" not in name)))
    clients = {name: caller(company, name) for name in names}
    changing, faults = set(), []
    for operation in operations():
        if operation.reads or operation.public:
            continue
        path = filled(operation, book)
        for name, client in clients.items():
            before = said_digests()
            with undone():
                works = send(client, operation, path, body_of(operation, known))
                if works.status_code >= 400 or said_digests() == before:
                    continue
            changing.add(str(operation))
            before = digests()
            with undone(), failing_inserts(AUDIT):
                answer = send(client, operation, path, body_of(operation, known))
                told = said(answer)
                if answer.status_code < 500 or "no room" in told or digests() != before:
                    faults.append((str(operation), name, answer.status_code))
            break  # The same service does it for whoever else may.
    assert faults == []
    assert len(changing) >= 10, changing


def test_a_refusal_stands_when_it_cannot_be_recorded(company: Company) -> None:
    """The door stays shut; that it could not be written down is in the server's own log."""
    outsider = caller(company, "a lead of finance")
    page = browser(company, "a lead of finance")
    with failing_inserts(AUDIT):
        before = digests()
        path = f"/api/v1/keys/{company.key.pk}/revoke"
        assert outsider.post(path, {}, content_type=JSON).status_code == 404
        assert page.post(f"/keys/{company.key.pk}/revoke").status_code in {404, 500, 503}
        assert digests() == before


def test_nobody_signs_in_unrecorded(company: Company) -> None:
    company.carla.set_password(PASSWORD)
    company.carla.save()
    body = {"email": company.carla.email, "password": PASSWORD}
    with failing_inserts(AUDIT):
        before = digests()
        client = Client(raise_request_exception=False)
        assert client.post("/sign-in", body).status_code >= 500
        assert client.get("/api/v1/me").status_code == 401
        answer = client.post("/api/v1/auth/token", body, content_type=JSON)
        assert answer.status_code >= 500
        assert digests() == before


def test_usage_waits_until_it_can_be_recorded(company: Company, redis: Any) -> None:
    """No bill without its event, and no event lost: the entry stays on the stream."""
    redis.xadd(USAGE_STREAM, {"entry": entry(request_id="waits").encode()})
    with failing_inserts(AUDIT):
        with pytest.raises(DatabaseError), transaction.atomic():
            collect_once(redis, consumer="attack", block_ms=1)
        assert not UsageRecord.objects.filter(request_id="waits").exists()
    assert redis.xlen(USAGE_STREAM) == 1
    collect_once(redis, consumer="attack", block_ms=1, claim_idle_ms=0)
    assert UsageRecord.objects.filter(request_id="waits").exists()
    assert AuditEvent.objects.filter(delivery="waits").count() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {table} SET reason = 'nothing happened'",
        "UPDATE {table} SET actor_name = 'somebody else' WHERE id > 0",
        "UPDATE {table} SET canonical = ''",
        "UPDATE {table} SET sequence = NULL, leaf_hash = ''",
        "DELETE FROM {table}",
        "DELETE FROM {table} WHERE outcome = 'denied'",
        "TRUNCATE {table}",
    ],
)
def test_what_is_written_cannot_be_unwritten(company: Company, statement: str) -> None:
    before = list(AuditEvent.objects.order_by("pk").values_list("pk", "canonical"))
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement.format(table=AUDIT))
    assert list(AuditEvent.objects.order_by("pk").values_list("pk", "canonical")) == before


def test_bills_cannot_be_unwritten(company: Company) -> None:
    rows = UsageRecord.objects.order_by("pk")
    before = list(rows.values())
    for change in (rows.delete, lambda: rows.update(prompt_tokens=0)):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()
    assert list(rows.values()) == before
