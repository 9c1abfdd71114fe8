"""Output file and error file at the end of a batch: one result for each line."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from governance.principals import background
from registry.batches.models import Batch, BatchLine, BatchState, LineState
from registry.batches.requests import LineInvalid, read_lines, read_request
from registry.batches.running import Claim, claimed, gateway_principal
from registry.batches.states import batch_move
from registry.files.content import ContentWriter, content_path
from registry.files.models import FilePurpose
from registry.files.services import file_add, new_file_id

_AT_ONCE = 500
_UNFINISHED = {
    BatchState.EXPIRED: (
        "batch_expired",
        "This request was not executed before the completion window expired.",
    ),
    BatchState.CANCELLED: ("batch_cancelled", "The batch was canceled before this request ran."),
    BatchState.FAILED: ("batch_failed", "The batch ended before this request ran."),
}


def batch_complete(*, claim: Claim, ending: BatchState, limit: int) -> None:
    """Write the files of a batch, and end it.

    If the process is killed meanwhile, its partial files do not count; the next runner writes new
    ones.

    Raises:
        ClaimLost: another runner has the batch.
    """
    batch = Batch.objects.get(pk=claim.batch_id)
    lines = BatchLine.objects.filter(batch=batch).order_by("number")
    failures: Counter[str] = Counter()
    output, errors = _Content(), _Content()
    try:
        for line in _rows(lines.filter(state=LineState.DONE, error="")):
            output.add(_answer(batch, line))
        for each, code in _failed(batch, lines, ending, limit):
            failures[code] += 1
            errors.add(each)
        output.finish()
        errors.finish()
    except BaseException:
        output.discard()
        errors.discard()
        raise
    # Keep the files on errors from here on: the rows may be committed even so, for example if the
    # answer to the commit was lost. Files without a row are removed an hour later.
    _end(claim, ending, failures, output, errors)


@transaction.atomic
def _end(
    claim: Claim,
    ending: BatchState,
    failures: Counter[str],
    output: _Content,
    errors: _Content,
) -> None:
    batch = claimed(claim)
    actor = gateway_principal()
    with background(batch.pk, actor):
        for content, kind in ((output, "output"), (errors, "error")):
            if content.writer is None:
                continue
            file_add(
                actor=actor,
                department=batch.department,
                sender=batch.sender,
                id=content.id,
                filename=f"{batch.pk}_{kind}.jsonl",
                purpose=FilePurpose.BATCH_OUTPUT,
                size=content.writer.size,
                sha256=content.sha256,
                classification=batch.classification,
                expires_after_s=batch.outputs_expire_s,
            )
            setattr(batch, f"{kind}_file", content.id)
        batch.failures = dict(failures)
        batch.failed = failures.total()
        fields = ("output_file", "error_file", "failures", "failed")
        batch_move(
            batch,
            ending,
            actor=actor,
            fields=fields,
            data={"output": batch.output_file, "errors": batch.error_file},
        )
        batch.lines.all().delete()


class _Content:
    """Lines of JSON in a new file, created with the first line."""

    def __init__(self) -> None:
        self.id = new_file_id()
        self.writer: ContentWriter | None = None
        self.sha256 = ""

    def add(self, line: dict[str, Any]) -> None:
        if self.writer is None:
            self.writer = ContentWriter(self.id)
        self.writer.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def finish(self) -> None:
        if self.writer is not None:
            self.sha256 = self.writer.finish()

    def discard(self) -> None:
        if self.writer is not None:
            self.writer.discard()


def _rows(lines: QuerySet[BatchLine]) -> Iterator[BatchLine]:
    """Yield the lines, reading some at a time to bound memory."""
    last = 0
    while chunk := list(lines.filter(number__gt=last)[:_AT_ONCE]):
        yield from chunk
        last = chunk[-1].number


def _failed(
    batch: Batch, lines: QuerySet[BatchLine], ending: BatchState, limit: int
) -> Iterator[tuple[dict[str, Any], str]]:
    for line in _rows(lines.filter(state=LineState.DONE).exclude(error="")):
        yield _answer(batch, line), line.error
    code, message = _UNFINISHED.get(ending, ("batch_failed", "The request did not run."))
    for line in _rows(lines.exclude(state=LineState.DONE)):
        yield _result(batch, line.number, line.custom_id, error=(code, message)), code
    if ending is BatchState.COMPLETED or not batch.total:
        return
    try:
        rest = read_lines(
            content_path(batch.input_file), limit, number=batch.next_line, offset=batch.next_offset
        )
        for each in rest:
            request = read_request(each, batch.endpoint, limit)
            yield _result(batch, each.number, request.custom_id, error=(code, message)), code
    except (FileNotFoundError, LineInvalid):
        return  # The input was lost from the disk; `errors` of the batch has the reason.


def _answer(batch: Batch, line: BatchLine) -> dict[str, Any]:
    if not line.status:
        return _result(batch, line.number, line.custom_id, error=(line.error, line.message))
    response = {
        "status_code": line.status,
        "request_id": line.request_id,
        "body": json.loads(line.body),
    }
    return _result(batch, line.number, line.custom_id, response=response)


def _result(
    batch: Batch,
    number: int,
    custom_id: str,
    *,
    response: dict[str, Any] | None = None,
    error: tuple[str, str] | None = None,
) -> dict[str, Any]:
    name = hashlib.sha256(f"{batch.pk}:{number}".encode()).hexdigest()[:32]
    return {
        "id": f"batch_req_{name}",
        "custom_id": custom_id,
        "response": response,
        "error": None if error is None else {"code": error[0], "message": error[1]},
    }
