"""`assay requests` against a real server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from governance.keys.services import access_token_create
from governance.people.models import Person
from governance.request_log.models import LogMode
from governance.request_log.schemas import RequestLogSettings
from governance.request_log.services import request_log_set
from governance.request_log.writing import Entry, entries_write
from governance.usage.models import UsageRecord
from registry.feedback.models import Feedback
from registry.releases.models import Release
from tests.people import find_or_make, make_person
from tests.proofs import fresh_proof, proven
from tests.unit.assay.test_cli import Run, run
from tests.unit.workers.releases import adapter, release

__all__ = ["run"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]
NAME = f"req_{'c' * 32}"
CONTENT = {
    "prompt": {"inputs": {"messages": [{"role": "user", "content": "Hello?"}]}, "options": {}},
    "answer": {
        "outcome": "ok",
        "choices": [{"index": 0, "text": "Hello.", "tool_calls": []}],
        "finish_reason": "stop",
    },
}


def sign_in(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = access_token_create(person=person, name="cli", proof=fresh_proof())
    monkeypatch.setenv("ASSAY_TOKEN", token)


@pytest.fixture
def logged(
    policy: object,
    redis: object,
    live_server: Any,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> Release:
    """A release whose requests reviewers may read: one answered after a fallback, one that had
    failed. The lead of the department is signed in."""
    monkeypatch.setenv("ASSAY_SERVER", live_server.url)
    with transaction.atomic():
        lead = make_person("Lena", "lead@clinical")
        settings = RequestLogSettings(mode=LogMode.FULL, datasets=True)
        request_log_set(actor=proven(lead), department=find_or_make("clinical"), log=settings)
        released = release(adapter(), conditions={"reviewers_read_content": True})
        at = datetime.now(UTC) + timedelta(seconds=1)
        for name, changes in (
            (NAME, {"retry_ms": 40, "cost_micro": 900}),
            ("req_failed", {"outcome": "failed"}),
        ):
            UsageRecord(
                **{
                    "request_id": name,
                    "occurred_at": at,
                    "department": "clinical",
                    "key_public_id": "key1",
                    "deployment": released.deployment_name,
                    "release": released.pk,
                    "endpoint": "/v1/chat/completions",
                    "outcome": "ok",
                    **changes,
                }
            ).save()
        entries_write([Entry("clinical", NAME, at.timestamp(), CONTENT)], {})
        sign_in(lead, monkeypatch)
    return released


def test_requests_are_filtered_exported_and_sent_as_feedback(
    logged: Release, run: Run, tmp_path: Path
) -> None:
    def listed(*options: str) -> list[str]:
        _, out, _ = run("requests", "list", *options, "--json", code=0)
        return [row["request_id"] for row in json.loads(out)]

    assert set(listed()) == {NAME, "req_failed"}
    assert listed("--fallback") == listed("--cost-from", "500") == [NAME]
    assert listed("--no-fallback") == listed("--outcome", "failed") == ["req_failed"]
    file = tmp_path / "requests.jsonl"
    why = ("--reason", "Report")
    _, out, _ = run("requests", "export", "clinical", str(file), "--fallback", *why, code=0)
    assert "has 1 requests" in out
    assert json.loads(file.read_text())["retry_ms"] == 40
    _, out, _ = run("requests", "feedback", NAME, "--correction", "Good day.", *why, code=0)
    feedback = Feedback.objects.get()
    assert f"Feedback {feedback.pk} waits for review." in out
    assert (feedback.request_id, feedback.correction) == (NAME, "Good day.")
    _, out, _ = run("api", "get", f"feedback?request_id={NAME}", code=0)
    assert json.loads(out)["results"][0]["id"] == feedback.pk


def test_a_reviewer_reads_the_requests_of_a_release(
    logged: Release, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction.atomic():
        sign_in(make_person("Carla", "reviewer:compliance"), monkeypatch)
    number = ("--release", str(logged.pk))
    _, out, _ = run("requests", "list", "--json", code=0)
    assert json.loads(out) == []
    _, out, _ = run("requests", "list", *number, "--json", code=0)
    assert {row["request_id"] for row in json.loads(out)} == {NAME, "req_failed"}
    _, out, _ = run("requests", "show", NAME, *number, "--reason", "Yearly check", code=0)
    assert "Hello?" in out
    _, _, error = run("requests", "show", NAME, *number, code=1)
    assert "give --reason" in error
