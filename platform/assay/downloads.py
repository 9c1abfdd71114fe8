"""Downloads: stored files, exports of the audit log and of requests, dossiers, evidence packs."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterator
from itertools import chain, islice
from typing import Any, BinaryIO

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from assay.server.downloads import ungated
from governance.audit.exports.log import export_lines
from governance.audit.exports.services import (
    audit_export_open,
    audit_log_export,
    export_name,
)
from governance.errors import DomainError, NotFound
from governance.principals import Principal
from governance.request_log.exports import requests_export
from governance.request_log.schemas import RequestExport
from registry.manifests import ManifestFile
from registry.releases.evidence import release_evidence
from registry.releases.exports.services import release_export
from registry.storage import store
from registry.storage.backend import file_key
from workers.deployments.selectors import deployment_ids_under

CHUNK_BYTES = 64 * 1024
# A chunk of lines is sent once it has this many bytes; a line with logged content can have as many.
LINES_BYTES = 256 * 1024
BINARY = "application/octet-stream"
# One range, from an offset to an end or to the last byte.
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")


class RangeNotSatisfiable(DomainError):
    """The range begins past the last byte (416)."""

    code = "range_not_satisfiable"
    status = 416
    title = "Range not satisfiable"


def audit_log_file(
    request: HttpRequest, actor: Principal, *, content_type: str
) -> StreamingHttpResponse:
    """Return the sealed log as JSON lines.

    Raises:
        NotFound, NotPermitted: the policy denies it.
        Unavailable: nothing is sealed yet.
    """
    audit_log_export(actor=actor)
    lines = iter(export_lines())
    # Read the first line here, so that an early failure is an error and not a partial file.
    source = chain(list(islice(lines, 1)), lines)
    return streamed_response(
        request,
        _line_chunks(source),
        content_type,
        {"Content-Disposition": 'attachment; filename="assay-audit.jsonl"'},
    )


def requests_file(
    request: HttpRequest, actor: Principal, export: RequestExport
) -> StreamingHttpResponse:
    """Return requests of a department as JSON Lines. Raises as `requests_export`."""
    lines = requests_export(actor=actor, export=export)
    name = f"requests-{export.department}.jsonl"
    return streamed_response(
        request,
        _line_chunks(lines),
        "application/jsonl",
        {"Content-Disposition": f'attachment; filename="{name}"'},
    )


def audit_export_file(
    request: HttpRequest, actor: Principal, export_id: int
) -> StreamingHttpResponse:
    """Return the file of an export of selected events, with its digest (RFC 9530)."""
    export, file = audit_export_open(actor=actor, export_id=export_id)
    return streamed_response(
        request,
        _file_chunks(file),
        BINARY,
        {
            "Content-Disposition": f'attachment; filename="{export_name(export)}"',
            "Content-Length": str(export.size),
            "Repr-Digest": repr_digest(bytes.fromhex(export.sha256)),
        },
    )


def dossier_file(actor: Principal, *, release_id: int, file_format: str) -> HttpResponse:
    """Return the frozen dossier in one format, with its digest (RFC 9530)."""
    export = release_export(actor=actor, release_id=release_id, format=file_format)
    return HttpResponse(
        export.content,
        content_type=export.content_type,
        headers={
            "Content-Disposition": f'attachment; filename="{export.name}"',
            "Repr-Digest": repr_digest(export.sha256),
            "Cache-Control": "no-store",
        },
    )


def evidence_file(actor: Principal, release_id: int) -> HttpResponse:
    """Return the evidence pack of a release, including its deployments."""
    pack = release_evidence(
        actor=actor, release_id=release_id, deployments=deployment_ids_under(release_id)
    )
    return HttpResponse(
        pack.content,
        content_type="application/zip",
        headers={
            "Content-Disposition": f'attachment; filename="{pack.name}"',
            "Cache-Control": "no-store",
        },
    )


def stored_file(request: HttpRequest, file: ManifestFile, holder: str) -> HttpResponseBase:
    """Return the requested bytes of a stored file, as a download of `holder`.

    A range in another form than `bytes=…` is ignored, as RFC 9110 requires.

    Raises:
        NotFound: the store does not have it.
        RangeNotSatisfiable: it begins past the end.
        StoreUnavailable: the store does not answer.
    """
    entry = store.backend().find(file_key(file.sha256))
    if entry is None or entry.size != file.size:
        raise NotFound(f"{file.path} is missing from the artifact store.", code="file_missing")
    start, end = _range_of(request, file.size)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        "ETag": f'"{file.sha256}"',
        "Repr-Digest": repr_digest(bytes.fromhex(file.sha256)),
    }
    status = 200
    if (start, end) != (0, file.size):
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    if request.method == "HEAD":
        return HttpResponse(status=status, content_type=BINARY, headers=headers)
    response = streamed_response(
        request,
        _stored_chunks(file.sha256, start, end - start),
        BINARY,
        {**headers, **ungated(holder)},
    )
    response.status_code = status
    return response


def streamed_response(
    request: HttpRequest, chunks: Iterator[bytes], content_type: str, headers: dict[str, str]
) -> StreamingHttpResponse:
    """Return a response that sends `chunks` one by one, without collecting them in memory."""
    streamed: Any = _from_thread(chunks) if isinstance(request, ASGIRequest) else chunks
    return StreamingHttpResponse(
        streamed,
        content_type=content_type,
        headers={**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _from_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the chunks for ASGI, which would collect a synchronous iterator in memory."""

    def following() -> bytes | None:
        return next(chunks, None)

    while (chunk := await sync_to_async(following)()) is not None:
        yield chunk


def _line_chunks(lines: Iterator[str]) -> Iterator[bytes]:
    chunk = bytearray()
    for line in lines:
        chunk += f"{line}\n".encode()
        if len(chunk) >= LINES_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def _file_chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def repr_digest(sha256: bytes) -> str:
    """Return the value of a `Repr-Digest` header (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def _range_of(request: HttpRequest, size: int) -> tuple[int, int]:
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None:
        return 0, size
    start = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < start:
        return 0, size
    if start >= size:
        raise RangeNotSatisfiable(f"The file has {size} bytes; the range begins at {start}.")
    return start, end


def _stored_chunks(sha256: str, start: int, left: int) -> Iterator[bytes]:
    for chunk in store.backend().chunks(file_key(sha256), start):
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return
