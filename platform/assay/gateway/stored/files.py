"""`/v1/files`: a department's files for batches, in OpenAI's shapes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.gateway.http.asgi import Headers
from assay.gateway.stored.database_desk import department_of
from assay.gateway.stored.requests import (
    Asked,
    PageQuery,
    answer_json,
    listed,
    read_query,
    refuse_query,
    require_method,
)
from assay.gateway.stored.uploads import Received
from governance.errors import DomainError
from governance.permissions import Action
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
    """Part of the list of files; of one purpose, if it is given."""

    limit: Annotated[int, Field(ge=1, le=10_000, strict=False)] = 1_000
    purpose: Literal["batch", "batch_output"] | None = None


def label(method: str, path: str) -> str:
    """Return the path as metrics and the ledger name it; empty when it is not one of these."""
    if path == PATH:
        return PATH
    parts = path.removeprefix(f"{PATH}/").split("/") if path.startswith(f"{PATH}/") else []
    if len(parts) == 1 and parts[0]:
        return f"{PATH}/{{id}}"
    return f"{PATH}/{{id}}/content" if len(parts) == 2 and parts[1] == "content" else ""


def check_method(endpoint: str, method: str) -> None:
    """Raise WrongMethod unless `endpoint` takes `method`."""
    other = {PATH: "POST", f"{PATH}/{{id}}": "DELETE"}.get(endpoint)
    require_method(endpoint, method, ("GET",) if other is None else ("GET", other))


def action_of(endpoint: str, method: str) -> Action:
    """Return the action that a request is."""
    return {"POST": Action.FILE_CREATE, "DELETE": Action.FILE_DELETE}.get(method, Action.FILE_VIEW)


async def answer(asked: Asked) -> None:
    """Answer a request on files, and record it.

    Raises:
        DomainError: it is refused.
    """
    call, key, desk = asked.call, asked.key, asked.runtime.files
    sender = asked.narrowed
    name = asked.path.removeprefix(PATH).strip("/").partition("/")[0]
    if call.endpoint == PATH and asked.method == "GET":
        part = read_query(FilesQuery, asked.scope)
        page = await desk.run(call, key, lambda actor: _list(actor, sender, part))
        await answer_json(asked, listed(page[0], has_more=page[1]))
        return
    refuse_query(asked.scope)
    if asked.method == "POST":
        await _upload(asked)
    elif asked.method == "DELETE":
        await desk.run(call, key, lambda actor: file_delete(actor=actor, id=name, sender=sender))
        gone = {"id": name, "object": "file", "deleted": True}
        await answer_json(asked, gone, recorded=True)
    else:
        found = await desk.run(
            call, key, lambda actor: file_get(actor=actor, id=name, sender=sender)
        )
        if call.endpoint.endswith("/content"):
            await _download(asked, found)
        else:
            await answer_json(asked, file_shown(found))


def _list(actor: Principal, sender: str, part: FilesQuery) -> tuple[list[dict[str, Any]], bool]:
    page = file_list(
        actor=actor,
        sender=sender,
        purpose=part.purpose or "",
        after=part.after,
        limit=part.limit,
        newest_first=part.order == "desc",
    )
    return [file_shown(file) for file in page.rows], page.has_more


async def _upload(asked: Asked) -> None:
    call, key, desk = asked.call, asked.key, asked.runtime.files
    # Before the body is read, so that a refused caller does not upload it.
    classification = asked.asker.circumstances.classification
    await desk.run(
        call,
        key,
        lambda actor: file_check(
            actor=actor, department=department_of(key), classification=classification
        ),
    )
    with desk.place(key):
        received = await desk.receive(asked.scope, asked.receive)
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

    # A cancellation, or a commit whose answer is lost, may leave a row. Bytes without a row are
    # removed an hour later.
    file = await desk.run(call, key, create)
    await answer_json(asked, file_shown(file), recorded=True)


def _read_form(received: Received) -> tuple[int | None, str]:
    """Return the seconds until the file expires, if they are given, and its name."""
    form = received.form
    for name in (*form.fields, *form.files):
        if name not in (*_FIELDS, "file"):
            raise RequestInvalid(
                f"Unrecognized request argument supplied: {printable(name)}.",
                param=printable(name),
                code="unknown_parameter",
            )
        if len(form.fields.get(name, ())) > 1:
            raise RequestInvalid(f"{name} comes twice.", param=name)
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
            "expires_after is the anchor created_at and a number of seconds.",
            param="expires_after",
        )
    return int(seconds), form.filenames["file"]


def file_shown(file: StoredFile) -> dict[str, Any]:
    """Return the file in OpenAI's shape."""
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


async def _download(asked: Asked, file: StoredFile) -> None:
    """Send the content in pieces, reading each before it is sent."""
    parts = chunks(file.pk)
    first = await asyncio.to_thread(_next, parts)  # Before the answer begins, or it is a 404.
    asked.call.recorded = asked.call.responding = True
    asked.runtime.ledger.record_bounded(asked.call.entry("ok", ran=False))
    name = _UNSAFE.sub("_", file.filename).encode("latin-1", "replace")
    headers: Headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(file.size).encode()),
        (b"content-disposition", b'attachment; filename="' + name + b'"'),
        (b"x-content-type-options", b"nosniff"),
        *asked.call.headers(),
    ]
    await asked.send({"type": "http.response.start", "status": 200, "headers": headers})
    while first:
        await asked.send({"type": "http.response.body", "body": first, "more_body": True})
        first = await asyncio.to_thread(_next, parts)
    await asked.send({"type": "http.response.body", "body": b""})


def _next(parts: Iterator[bytes]) -> bytes:
    return next(parts, b"")
