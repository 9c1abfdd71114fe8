"""States of batches, and the reading of their input."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import WrongState
from governance.people.models import Department
from registry.batches import outputs
from registry.batches.models import Batch, BatchLine, BatchState
from registry.batches.requests import check_endpoint, line_limit, read_lines, validate_input
from registry.batches.running import (
    AT_ONCE_OF_DEPARTMENT,
    Claim,
    ClaimLost,
    LineResult,
    batch_claim,
    batch_finalize,
    batch_renew,
    line_finish,
    line_give_back,
    line_request_id,
)
from registry.batches.services import batches_purge_due
from registry.batches.states import ALLOWED_TRANSITIONS, BATCH_STATES, OPEN
from registry.catalog.requests import RequestInvalid
from registry.files.content import content_path
from registry.files.models import StoredFile
from registry.files.services import files_expire_due

CHAT = "/v1/chat/completions"
LIMIT = line_limit(1024)
GOOD = (
    '{"custom_id": "%s", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m"}}'
)


@pytest.mark.parametrize("before", list(BatchState))
@pytest.mark.parametrize("after", list(BatchState))
def test_a_batch_moves_as_the_table_says(before: BatchState, after: BatchState) -> None:
    batch = Batch(id="batch_1", state=before)
    if after in ALLOWED_TRANSITIONS[before]:
        assert BATCH_STATES.set_state(batch, after) == before
        assert batch.state == after
    else:
        with pytest.raises(WrongState):
            BATCH_STATES.set_state(batch, after)


def test_four_states_are_final() -> None:
    final = {"completed", "failed", "expired", "cancelled"}
    assert {state.value for state in BatchState} - {state.value for state in OPEN} == final


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\ud800"])
def test_a_deployment_name_that_the_database_cannot_store_is_refused(name: str) -> None:
    check_endpoint("/v1/tasks/image-classification/garments")
    with pytest.raises(RequestInvalid, match="no task has") as refused:
        check_endpoint(f"/v1/tasks/image-classification/{name}")
    assert refused.value.message.isprintable()


def test_lines_are_found_again_by_their_offset(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"\n".join([b"first", b"", b"  ", "zweite ü".encode(), b"last"]))
    lines = list(read_lines(file, LIMIT))
    assert [(line.number, line.data.strip().decode()) for line in lines] == [
        (1, "first"),
        (4, "zweite ü"),
        (5, "last"),
    ]
    for line, following in pairwise(lines):
        again = next(read_lines(file, LIMIT, number=line.number + 1, offset=line.following))
        assert again == following


def test_a_huge_line_is_read_no_further_than_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"x" * 10_000_000 + b"\n" + b"y")
    (line,) = read_lines(file, LIMIT)
    assert len(line.data) == LIMIT + 1


def test_faults_have_line_numbers_and_an_end(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_text(GOOD % "a" + "\n\n" + "{\n" * 200)
    found = validate_input(file, CHAT, limit=LIMIT, lines_max=1000)
    assert [fault.line for fault in found.faults] == list(range(3, 103))
    few = validate_input(file, CHAT, limit=LIMIT, lines_max=20)
    assert [(fault.code, fault.line) for fault in few.faults] == [("too_many_requests", None)]


def test_each_attempt_has_an_id_of_its_own_that_any_process_finds_again() -> None:
    ids = {line_request_id("batch_1", number, attempt) for number in (1, 2) for attempt in (1, 2)}
    assert len(ids) == 4
    assert line_request_id("batch_1", 1, 1) in ids
    assert all(len(each) == 36 for each in ids)


def ended_batch(department: Department, name: str, days: int) -> Batch:
    """Return a batch that ended so many days ago; with 0, one that still runs."""
    now = timezone.now()
    return Batch.objects.create(
        id=f"batch_{name}",
        department=department,
        sender="k",
        key_name="k",
        classification="internal",
        endpoint=CHAT,
        input_file=f"file-{name}",
        expires_at=now,
        state=BatchState.COMPLETED if days else BatchState.IN_PROGRESS,
        ended_at=now - timedelta(days=days) if days else None,
    )


@pytest.mark.django_db
def test_batches_are_deleted_long_after_their_end(department: Callable[[str], Department]) -> None:
    clinical = department("clinical")
    for name, days in (("old", 91), ("new", 89), ("running", 0)):
        ended_batch(clinical, name, days)
    BatchLine.objects.create(batch_id="batch_old", number=1, custom_id="a", offset=0, size=1)
    assert batches_purge_due() == 1
    assert {batch.pk for batch in Batch.objects.all()} == {"batch_new", "batch_running"}
    assert not BatchLine.objects.exists()
    assert AuditEvent.objects.get(action="batch:purge").department == "clinical"
    assert batches_purge_due() == 0


@pytest.mark.django_db
def test_an_expired_input_stays_until_its_batch_has_ended(
    department: Callable[[str], Department],
) -> None:
    clinical = department("clinical")
    ended_batch(clinical, "running", 0)
    ended_batch(clinical, "done", 1)
    for name in ("running", "done"):
        StoredFile.objects.create(
            id=f"file-{name}",
            department=clinical,
            sender="k",
            filename="f",
            purpose="batch",
            size=1,
            sha256="0" * 64,
            expires_at=timezone.now(),
        )
    assert files_expire_due() == 1
    assert StoredFile.objects.get().pk == "file-running"


@pytest.mark.django_db
def test_one_runner_has_a_batch_and_one_department_leaves_room_for_others(
    department: Callable[[str], Department],
) -> None:
    clinical, finance = department("clinical"), department("finance")
    for number in range(AT_ONCE_OF_DEPARTMENT + 1):
        ended_batch(clinical, f"c{number}", 0)
    ended_batch(finance, "f", 0)
    claimed = []
    while (found := batch_claim()) is not None:
        claimed.append(found[0].pk)
    assert claimed == [*(f"batch_c{number}" for number in range(AT_ONCE_OF_DEPARTMENT)), "batch_f"]
    Batch.objects.filter(pk="batch_c0").update(lease_until=timezone.now())
    again = batch_claim()
    assert again is not None
    assert (again[0].pk, again[1].fence) == ("batch_c0", 2)
    late = Claim("batch_c0", 1)
    for step in (
        lambda: batch_renew(late),
        lambda: line_give_back(claim=late, number=1),
        lambda: line_finish(claim=late, number=1, result=LineResult(200, "{}")),
        lambda: batch_finalize(claim=late),
    ):
        with pytest.raises(ClaimLost):
            step()


@pytest.mark.django_db
def test_the_output_stays_when_the_answer_to_its_commit_is_lost(
    department: Callable[[str], Department],
    tmp_path: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.DATA_DIR = tmp_path
    batch = ended_batch(department("clinical"), "a", 0)
    BatchLine.objects.create(
        batch=batch, number=1, custom_id="a", offset=0, size=1, state="done", status=200, body="{}"
    )
    claim = batch_claim()
    assert claim is not None
    batch_finalize(claim=claim[1])
    real = outputs._end

    def lost(*given: Any) -> None:
        real(*given)
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(outputs, "_end", lost)
    with pytest.raises(OperationalError):
        outputs.batch_complete(claim=claim[1], ending=BatchState.COMPLETED, limit=LIMIT)
    file = StoredFile.objects.get()
    assert Batch.objects.get(pk=batch.pk).output_file == file.pk
    assert content_path(file.pk).stat().st_size == file.size
