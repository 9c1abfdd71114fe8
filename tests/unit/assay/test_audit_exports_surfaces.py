"""Exports of selected events through the API, the portal and the command line."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext

from assay.cli import audit_exports as cli
from governance.audit.exports.models import AuditExport, ExportState
from governance.audit.exports.run import export_next, exports_tidy
from governance.audit.exports.selection_csv import verify_zip
from governance.audit.exports.services import export_file, exports_folder
from governance.audit.models import AuditEvent
from governance.audit.signing import audit_public_keys
from governance.people.models import Person
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_cli import Run, ada, run, signed_in  # noqa: F401 (fixtures)
from tests.unit.governance.exports_support import NEVER, write

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]

ANY = {"format": "jsonl"}


@pytest.fixture(autouse=True)
def data(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path / "data"
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"


@pytest.fixture
def asha(policy: object, redis: object, person: Callable[..., Person]) -> Person:
    return person("Asha", "auditor")


def browser(person: Person) -> Client:
    client = Client()
    client.force_login(person)
    return client


def test_the_api_asks_shows_progress_and_hands_out_the_file(asha: Person) -> None:
    write(12)
    api = Api(asha)
    asked = api.post("audit/exports", {"filter": {"action": "model:create"}, "format": "csv"})
    assert asked.status_code == 202, asked.content
    address = f"audit/exports/{asked.body['id']}"
    assert asked.body["state"] == "queued"
    assert problem_of(api.get(f"{address}/file"), 409)["hint"]

    assert export_next(NEVER)

    shown = api.get(address).body
    assert (shown["state"], shown["rows"], shown["percent"]) == ("done", 12, 100)
    answer = api.get(f"{address}/file")
    content = b"".join(answer.streaming_content)
    assert hashlib.sha256(content).hexdigest() == shown["sha256"]
    stated = base64.b64encode(bytes.fromhex(shown["sha256"])).decode()
    assert answer.headers["Repr-Digest"] == f"sha-256=:{stated}:"
    assert int(answer.headers["Content-Length"]) == len(content)
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    assert verify_zip(export_file(AuditExport.objects.get()), public_keys=audit_public_keys()).ok
    assert AuditEvent.objects.filter(action="audit:download").count() == 1
    assert [row["id"] for row in api.get("audit/exports").body["results"]] == [shown["id"]]


@pytest.mark.django_db(transaction=True)
async def test_the_file_is_streamed_under_asgi_too(asha: Person) -> None:
    from asgiref.sync import sync_to_async

    api = await sync_to_async(Api)(asha)
    asked = await sync_to_async(api.post)("audit/exports", ANY)
    await sync_to_async(export_next)(NEVER)
    answer: Any = await AsyncClient().get(
        f"/api/v1/audit/exports/{asked.body['id']}/file",
        headers={"authorization": f"Bearer {api.token}"},
    )
    assert answer.status_code == 200
    content = b"".join([chunk async for chunk in answer.streaming_content])
    assert content.startswith(b'{"checkpoint":')


def test_the_same_key_asks_once(asha: Person) -> None:
    api = Api(asha)
    first, again = (api.post("audit/exports", ANY, **{"Idempotency-Key": "k"}) for _ in range(2))
    assert first.body["id"] == again.body["id"]
    assert AuditExport.objects.count() == 1


def test_one_is_canceled_and_then_over(asha: Person) -> None:
    api = Api(asha)
    address = f"audit/exports/{api.post('audit/exports', ANY).body['id']}"
    assert api.post(f"{address}/cancel").body["state"] == "canceled"
    problem_of(api.post(f"{address}/cancel"), 409)
    assert not export_next(NEVER)


def test_anothers_does_not_exist_and_who_may_not_gets_none(
    asha: Person, person: Callable[..., Person]
) -> None:
    made = Api(asha).post("audit/exports", ANY).body["id"]
    export_next(NEVER)
    for role in ("admin", "auditor"):
        other = person(f"Other {role}", role)
        api, client = Api(other), browser(other)
        for address in (f"audit/exports/{made}", f"audit/exports/{made}/file"):
            problem_of(api.get(address), 404)
        problem_of(api.post(f"audit/exports/{made}/cancel"), 404)
        assert client.get(f"/audit/exports/{made}/file").status_code == 404
        assert client.post(f"/audit/exports/{made}/cancel").status_code == 404
        assert f"Export {made}" not in client.get("/audit/exports").content.decode()
    lead = person("Lena", "lead@clinical")
    assert Api(lead).post("audit/exports", ANY).status_code in {403, 404}
    assert browser(lead).get("/audit/exports").status_code in {403, 404}
    assert browser(lead).post("/audit/exports", {"format": "csv"}).status_code in {403, 404}
    assert AuditExport.objects.count() == 1


def test_what_cannot_be_asked_for_is_refused(asha: Person) -> None:
    api = Api(asha)
    for body in (
        {"format": "xlsx"}, {"filter": {"password": "x"}}, {"filter": 7}, {"filters": {}},
        {"filter": {"since": "yesterday"}},
    ):  # fmt: skip
        problem_of(api.post("audit/exports", body), 400)
    assert not AuditExport.objects.exists()


def test_the_page_asks_for_what_the_list_shows_and_follows_it(asha: Person) -> None:
    write(700)
    client = browser(asha)
    page = client.get("/audit/exports", {"action": "model:create", "until": "2999-01-01"})
    text = page.content.decode()
    assert page.status_code == 200
    assert 'name="action" value="model:create"' in text
    assert "2999-01-02 00:00 UTC" in text
    assert "No exports" in text

    sent = client.post("/audit/exports", {"action": "model:create", "format": "jsonl"})
    assert sent.status_code == 302
    export = AuditExport.objects.get()
    assert export.filters == {"action": "model:create"}
    text = client.get("/audit/exports").content.decode()
    assert "Waiting for the controller" in text
    assert 'hx-trigger="every 2s"' in text

    AuditExport.objects.update(state="running", tree_size=700, searched=350, rows=350)
    text = " ".join(client.get("/audit/exports/rows").content.decode().split())
    assert "350 events found in 350 of 700" in text
    assert 'value="50"' in text
    AuditExport.objects.update(state="queued")

    export_next(NEVER)
    export.refresh_from_db()
    text = client.get("/audit/exports/rows").content.decode()
    assert "Download" in text
    assert "hx-trigger" not in text
    answer: Any = client.get(f"/audit/exports/{export.pk}/file")
    assert b"".join(answer.streaming_content) == export_file(export).read_bytes()
    for state, words in (
        ({"state": "failed", "error": "The disk is full."}, "The disk is full."),
        ({"state": "canceled"}, "Canceled"),
        ({"state": "expired"}, "The file was deleted"),
    ):
        AuditExport.objects.update(**state)
        assert words in client.get("/audit/exports").content.decode()


def test_a_filter_that_says_nothing_is_shown_as_refused(asha: Person) -> None:
    page = browser(asha).get("/audit/exports", {"since": "yesterday"})
    assert page.status_code == 200
    assert "The filter cannot be used." in page.content.decode()
    refused = browser(asha).post("/audit/exports", {"since": "yesterday", "format": "csv"})
    assert refused.status_code == 400
    assert not AuditExport.objects.exists()


def test_a_page_of_twenty_costs_no_more_queries_than_one_of_one(asha: Person) -> None:
    client, counts = browser(asha), []
    client.get("/audit/exports")
    for number in range(20):
        AuditExport.objects.create(person=asha, filters={"action": "a:b"}, format="csv")
        if number in {0, 19}:
            with CaptureQueriesContext(connection) as captured:
                assert client.get("/audit/exports").status_code == 200
            counts.append(len(captured))
            with CaptureQueriesContext(connection) as captured:
                assert client.get("/audit/exports/rows").status_code == 200
            counts.append(len(captured))
    assert counts[:2] == counts[2:], counts
    assert max(counts) <= 24, counts


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The controller's step in the command line's pauses; with one entry left, an interrupt."""
    pauses: list[int] = []

    def pause(_seconds: float) -> None:
        pauses.append(1)
        if len(pauses) == 99:
            raise KeyboardInterrupt
        export_next(NEVER)

    monkeypatch.setattr(cli.time, "sleep", pause)
    return pauses


def test_the_command_line_exports_a_selection_and_verifies_it_offline(
    signed_in: Run,  # noqa: F811
    tmp_path: Path,
    controller: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(9)
    lines, table = tmp_path / "some.jsonl", tmp_path / "some.zip"
    chosen = ["--action", "model:create", "--since", "2020-01-01", "--filter", "subject_type=model"]
    _, out, _ = signed_in("audit", "export", str(lines), *chosen, code=0)
    assert "9 events with proofs are in" in out
    _, out, _ = signed_in("audit", "export", str(table), "--format", "csv", *chosen, code=0)
    assert controller

    monkeypatch.setenv("ASSAY_SERVER", "http://127.0.0.1:9")
    for file in (lines, table):
        _, out, err = signed_in("audit", "verify", str(file), code=0)
        assert "All 9 events of this selection are in the log" in " ".join(out.split())
        assert "does not show that no other event" in " ".join(out.split())
        assert "the key that is in the export" in " ".join(err.split())
        _, _, err = signed_in("audit", "verify", str(file), "--key", audit_public_keys(), code=0)
        assert err == ""
    lines.write_text(lines.read_text().replace("model 3", "model 4", 1))
    _, _, err = signed_in("audit", "verify", str(lines), code=1)
    assert "was changed" in err
    table.write_bytes(table.read_bytes()[:200])
    _, _, err = signed_in("audit", "verify", str(table), code=1)
    assert err.startswith("Error: ")
    for wrong in (["--since", "yesterday"], ["--filter", "nonsense"], ["--format", "xlsx"]):
        _, _, err = signed_in("audit", "export", str(lines), *wrong, code=1)
        assert err


def test_an_interrupted_export_is_canceled(
    signed_in: Run,  # noqa: F811
    tmp_path: Path,
    controller: list[int],
) -> None:
    controller.extend([1] * 98)
    signed_in("audit", "export", str(tmp_path / "x"), "--format", "csv")
    assert AuditExport.objects.get().state == ExportState.CANCELED
    assert not (tmp_path / "x").exists()
    exports_tidy()
    assert not list(exports_folder().glob("*"))


def test_a_failed_export_is_said_to_have_failed(
    signed_in: Run,  # noqa: F811
    tmp_path: Path,
    controller: list[int],
    settings: Any,
) -> None:
    write(3)
    settings.AUDIT_EXPORT_MAX_ROWS = 1
    _, _, err = signed_in("audit", "export", str(tmp_path / "x"), "--format", "csv", code=1)
    assert "The export is failed." in err
    assert "More than 1 events match" in err
