"""`/v1/files`: a department's files for batches, in OpenAI's format."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.gateway.http.asgi import Headers
from assay.gateway.stored.database_desk import department_of
from assay.gateway.stored.requests import (
    OwnRequest,
    PageQuery,
    answer_json,
    list_body,
    note_answer,
    read_query,
    refuse_query,
)
from assay.gateway.stored.uploads import Received
from governance.errors import DomainError
from governance.principals import Principal
from registry.catalog.requests import RequestInvalid, printable
from registry.files.content import chunks, content_delete
from registry.files.models import FilePurpose, StoredFile
from registry.files.selectors import file_get, file_list
from registry.files.services import file_check, file_create, file_delete

PATH = "/v1/files"
_FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
_UNSAFE = re.compile(r'[^\w.\- ]|["\\]')


class FilesQuery(PageQuery):
    """Page of the list of files, optionally of one purpose."""

    limit: Annotated[int, Field(ge=1, le=10_000, strict=False)] = 1_000
    purpose: Literal["batch", "batch_output"] | None = None


async def page(request: OwnRequest) -> None:
    """Answer with a page of files."""
    part, sender = read_query(FilesQuery, request.scope), request.narrowed
    data, has_more = await request.on_files(lambda actor: _list(actor, sender, part))
    await answer_json(request, list_body(data, has_more=has_more))


async def show(request: OwnRequest) -> None:
    """Answer with one file."""
    refuse_query(request.scope)
    await answer_json(request, file_as_json(await _get(request)))


async def delete(request: OwnRequest) -> None:
    """Delete one file."""
    refuse_query(request.scope)
    await request.on_files(
        lambda actor: file_delete(actor=actor, id=request.id, sender=request.narrowed)
    )
    deleted = {"id": request.id, "object": "file", "deleted": True}
    await answer_json(request, deleted, recorded=True)


async def _get(request: OwnRequest) -> StoredFile:
    return await request.on_files(
        lambda actor: file_get(actor=actor, id=request.id, sender=request.narrowed)
    )


def _list(actor: Principal, sender: str, part: FilesQuery) -> tuple[list[dict[str, Any]], bool]:
    page = file_list(
        actor=actor,
        sender=sender,
        purpose=part.purpose or "",
        after=part.after,
        limit=part.limit,
        newest_first=part.order == "desc",
    )
    return [file_as_json(file) for file in page.rows], page.has_more


async def upload(request: OwnRequest) -> None:
    """Store a file.

    Raises:
        DomainError: it is refused.
    """
    refuse_query(request.scope)
    key, desk = request.key, request.desks.files
    # Before the body is read, so that a refused caller does not upload it.
    classification = request.caller.circumstances.classification
    await request.on_files(
        lambda actor: file_check(
            actor=actor, department=department_of(key), classification=classification
        ),
    )
    with desk.place(key):
        received = await desk.receive(request.scope, request.receive)
    try:
        seconds, filename = _read_form(received)
    except DomainError:
        content_delete(received.id)
        raise

    def create(actor: Principal) -> StoredFile:
        try:
            return file_create(
                actor=actor,
                department=department_of(key),
                sender=key.recorded_as,
                id=received.id,
                filename=filename,
                size=received.size,
                sha256=received.sha256,
                classification=classification,
                expires_after_s=seconds,
            )
        except DomainError:
            content_delete(received.id)
            raise

    # After a cancellation or a lost answer to the commit, the row may exist, so keep the content.
    # Content without a row is removed an hour later.
    file = await request.on_files(create)
    await answer_json(request, file_as_json(file), recorded=True)


def _read_form(received: Received) -> tuple[int | None, str]:
    """Return the seconds until the file expires, if requested, and its name."""
    form = received.form
    for name in (*form.fields, *form.files):
        if name not in (*_FIELDS, "file"):
            raise RequestInvalid(
                f"Unrecognized request argument supplied: {printable(name)}.",
                param=printable(name),
                code="unknown_parameter",
            )
        if len(form.fields.get(name, ())) > 1:
            raise RequestInvalid(f"{name} is sent more than once.", param=name)
    if list(form.files) != ["file"]:
        raise RequestInvalid("Send one file in the field `file`.", param="file")
    purpose, anchor, seconds = (form.fields.get(name, [""])[0] for name in _FIELDS)
    if purpose != FilePurpose.BATCH:
        raise RequestInvalid(
            f"purpose is {printable(purpose, 40) or 'missing'}; files are stored for `batch` only. "
            "Documents go into a knowledge base, and training data into a dataset.",
            param="purpose",
        )
    if not anchor and not seconds:
        return None, form.filenames["file"]
    if anchor != "created_at" or not re.fullmatch(r"[0-9]{1,9}", seconds):
        raise RequestInvalid(
            "expires_after needs the anchor created_at and a number of seconds.",
            param="expires_after",
        )
    return int(seconds), form.filenames["file"]


def file_as_json(file: StoredFile) -> dict[str, Any]:
    """Return the file in OpenAI's format."""
    return {
        "id": file.pk,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": int(file.expires_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


async def download(request: OwnRequest) -> None:
    """Send the content of a file in pieces, reading each before it is sent."""
    refuse_query(request.scope)
    file = await _get(request)
    parts = chunks(file.pk)
    first = await asyncio.to_thread(_next, parts)  # A missing file must raise before the answer.
    request.call.responding = True
    note_answer(request)
    name = _UNSAFE.sub("_", file.filename).encode("latin-1", "replace")
    headers: Headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(file.size).encode()),
        (b"content-disposition", b'attachment; filename="' + name + b'"'),
        (b"x-content-type-options", b"nosniff"),
        *request.call.headers(),
    ]
    await request.send({"type": "http.response.start", "status": 200, "headers": headers})
    while first:
        await request.send({"type": "http.response.body", "body": first, "more_body": True})
        first = await asyncio.to_thread(_next, parts)
    await request.send({"type": "http.response.body", "body": b""})


def _next(parts: Iterator[bytes]) -> bytes:
    return next(parts, b"")
