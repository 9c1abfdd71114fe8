"""States of batches, and the reading of their input."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from governance.errors import WrongState
from registry.batches.models import Batch, BatchState
from registry.batches.requests import line_limit, read_lines, validate_input
from registry.batches.running import line_request_id
from registry.batches.states import ALLOWED_TRANSITIONS, BATCH_STATES, OPEN

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
