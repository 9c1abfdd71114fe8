"""`/v1/files` through the official client: bounded, paginated, and of one department."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from django.db import OperationalError
from django.utils import timezone

from assay.gateway.stored import database_desk
from governance.audit.models import AuditEvent
from registry.files import content, room
from registry.files.models import StoredFile
from registry.files.services import files_expire_due
from tests.unit.assay.gateway_support import Stage, stage
from tests.waiting import wait_until

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
LINES = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'


@pytest.fixture(autouse=True)
def data_dir(settings: Any, tmp_path: Any) -> None:
    settings.DATA_DIR = tmp_path


def stored() -> list[str]:
    if not content.folder().exists():
        return []
    return sorted(path.name for path in content.folder().iterdir())


def test_a_file_is_uploaded_read_listed_and_deleted(stage: Stage) -> None:
    files = stage.client(stage.key()).files
    first = files.create(file=("questions.jsonl", LINES), purpose="batch")
    assert (first.bytes, first.filename, first.purpose) == (len(LINES), "questions.jsonl", "batch")
    second = files.create(
        file=("more.jsonl", LINES),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    # The clock is read twice, in whole seconds.
    assert second.expires_at - second.created_at == pytest.approx(7200, abs=60)
    assert first.expires_at - first.created_at == pytest.approx(30 * 86_400, abs=60)
    assert files.retrieve(first.id) == first
    assert files.content(first.id).read() == LINES
    assert [file.id for file in files.list(limit=1)] == [second.id, first.id]
    page = files.list(limit=1, order="asc", purpose="batch")
    assert ([file.id for file in page.data], page.has_more) == ([first.id], True)
    assert files.list(purpose="batch_output").data == []
    gone = files.delete(first.id)
    assert (gone.id, gone.deleted) == (first.id, True)
    with pytest.raises(openai.NotFoundError):
        files.retrieve(first.id)
    assert stored() == [second.id]
    made = AuditEvent.objects.filter(action__startswith="file:").order_by("pk")
    assert [event.action for event in made] == ["file:create", "file:create", "file:delete"]
    assert {event.department for event in made} == {"engineering"}
    assert b"custom_id" not in b"".join(bytes(event.canonical) for event in made)


def test_another_departments_file_does_not_exist(stage: Stage) -> None:
    made = stage.client(stage.key()).files.create(file=("a.jsonl", LINES), purpose="batch")
    theirs = stage.client(stage.key("finance")).files
    assert theirs.list().data == []
    for ask in (
        lambda: theirs.retrieve(made.id),
        lambda: theirs.delete(made.id),
        lambda: theirs.content(made.id),
        lambda: theirs.retrieve("file-%00"),
        lambda: theirs.content("file-" + "0" * 32),
        lambda: theirs.content("..%2F..%2Fetc%2Fpasswd"),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    with pytest.raises(openai.BadRequestError):
        theirs.list(after=made.id)
    assert stored() == [made.id]


def test_the_bytes_stay_when_the_answer_to_a_commit_is_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = database_desk._narrowed

    def lost(*given: Any) -> Any:
        done: Any = real(*given)
        if isinstance(done, StoredFile):
            raise OperationalError("the connection is lost")
        return done

    monkeypatch.setattr(database_desk, "_narrowed", lost)
    client = stage.client(stage.key()).with_options(max_retries=0)
    with pytest.raises(openai.InternalServerError):
        client.files.create(file=("a.jsonl", LINES), purpose="batch")
    assert stored() == list(StoredFile.objects.values_list("pk", flat=True))
    assert len(stored()) == 1


@pytest.mark.parametrize("purpose", ["user_data", "assistants", "fine-tune", "vision", "\0"])
def test_other_purposes_are_refused_with_a_sentence(stage: Stage, purpose: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="for `batch` only") as refused:
        stage.client(stage.key()).files.create(file=("a", LINES), purpose=purpose)
    assert refused.value.param == "purpose"
    assert stored() == []


def test_forms_that_are_wrong_leave_nothing_behind(stage: Stage, settings: Any) -> None:
    settings.FILE_MAX_BYTES = 100
    token = stage.key()
    form = {"content-type": "multipart/form-data; boundary=x"}
    good = {"purpose": "batch"}
    two = [("file", ("a", b"1")), ("file", ("b", b"2"))]
    cases: list[tuple[int, dict[str, Any]]] = [
        (400, {"data": good, "files": {"other": ("a", LINES)}}),
        (400, {"data": good, "files": two}),
        (400, {"data": {}, "files": {"file": ("a", LINES)}}),
        (400, {"data": {**good, "more": "1"}, "files": {"file": ("a", LINES)}}),
        (400, {"data": good, "files": {"file": ("a", b"")}}),
        (400, {"data": good, "files": {"file": ("a" * 5000, LINES)}}),
        (400, {"data": {"purpose": "b" * 70_000}, "files": {"file": ("a", LINES)}}),
        (413, {"data": good, "files": {"file": ("a", b"x" * 101)}}),
        (413, {"data": good, "files": {"file": ("a", b"x" * 3_000_000)}}),
        (415, {"json": good}),
        (400, {"content": b"--x\r\n", "headers": form}),
        (400, {"content": b"--x", "headers": {"content-type": "multipart/form-data"}}),
        *(
            (400, {"data": {**good, **after}, "files": {"file": ("a", LINES)}})
            for after in (
                {"expires_after[seconds]": "7200"},
                {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
                {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
                {"expires_after[anchor]": "created_at", "expires_after[seconds]": "1e4"},
            )
        ),
    ]
    for status, options in cases:
        answer = stage.post("/v1/files", token, **options)
        assert (answer.status_code, bool(answer.json()["error"]["message"])) == (status, True)
    assert stored() == []
    headers = {"authorization": f"Bearer {token}"}
    for asked in ("?limit=0", "?limit=10001", "?order=up", "?after=file-1", "?x=1", "?purpose=a"):
        assert httpx.get(f"{stage.url}/v1/files{asked}", headers=headers).status_code == 400
    assert httpx.put(f"{stage.url}/v1/files", headers=headers).status_code == 405


def test_a_department_has_room_for_so_many_files_and_bytes(
    stage: Stage, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.FILES_DEPARTMENT_BYTES = 100
    files = stage.client(stage.key()).files
    files.create(file=("a", LINES), purpose="batch")
    files.create(file=("b", LINES), purpose="batch")
    with pytest.raises(openai.ConflictError) as full:
        files.create(file=("c", LINES), purpose="batch")
    assert full.value.code == "too_many_files"
    settings.FILES_DEPARTMENT_BYTES = 10_000
    monkeypatch.setattr(room, "FILES_MAX", 2)
    with pytest.raises(openai.ConflictError):
        files.create(file=("c", LINES), purpose="batch")
    assert stage.client(stage.key("finance")).files.create(file=("a", LINES), purpose="batch").id
    assert len(stored()) == 3


def test_a_disk_that_takes_nothing_is_said_to_be_away(stage: Stage, settings: Any) -> None:
    occupied = settings.DATA_DIR / "file"
    occupied.write_text("")
    settings.DATA_DIR = occupied
    files = stage.client(stage.key()).files
    with pytest.raises(openai.InternalServerError) as away:
        files.create(file=("a", LINES), purpose="batch")
    assert (away.value.status_code, away.value.code) == (503, "unavailable")
    assert not StoredFile.objects.exists()


def test_an_upload_that_stops_in_the_middle_leaves_nothing(stage: Stage) -> None:
    def half() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield b"y" * 2_000_000
        raise ConnectionError

    with pytest.raises(ConnectionError):
        stage.post(
            "/v1/files",
            stage.key(),
            content=half(),
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
    wait_until(lambda: not stored())


def test_expired_files_are_deleted_with_their_bytes(stage: Stage) -> None:
    files = stage.client(stage.key()).files
    gone = files.create(file=("a", LINES), purpose="batch")
    kept = files.create(file=("b", LINES), purpose="batch")
    StoredFile.objects.filter(pk=gone.id).update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(openai.NotFoundError):
        files.content(gone.id)
    assert files_expire_due() == 1
    assert stored() == [kept.id]
    event = AuditEvent.objects.get(action="file:expire")
    assert json.loads(bytes(event.canonical))["data"]["count"] == 1
