"""Responses with a file to keep: exports of the audit log, dossiers and evidence packs."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from itertools import chain, islice
from typing import Any, BinaryIO

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from governance.audit.exports.log import export_lines
from governance.audit.exports.services import (
    audit_export_open,
    audit_log_export,
    export_name,
)
from governance.principals import Principal
from registry.releases.evidence import release_evidence
from registry.releases.exports.services import release_export
from workers.deployments.selectors import deployment_ids_under

CHUNK_BYTES = 64 * 1024
LINES_AT_ONCE = 500


def audit_log_file(
    request: HttpRequest, actor: Principal, *, content_type: str
) -> StreamingHttpResponse:
    """The sealed log as JSON lines.

    Raises:
        NotFound, NotPermitted: the policy refuses.
        Unavailable: nothing is sealed yet.
    """
    audit_log_export(actor=actor)
    lines = iter(export_lines())
    # A failure before the first line is still a refusal, not half a file.
    source = chain(list(islice(lines, 1)), lines)
    return streamed_response(
        request,
        _line_chunks(source),
        content_type,
        {"Content-Disposition": 'attachment; filename="assay-audit.jsonl"'},
    )


def audit_export_file(
    request: HttpRequest, actor: Principal, export_id: int
) -> StreamingHttpResponse:
    """The file of an export of selected events, with its digest (RFC 9530)."""
    export, file = audit_export_open(actor=actor, export_id=export_id)
    return streamed_response(
        request,
        _file_chunks(file),
        "application/octet-stream",
        {
            "Content-Disposition": f'attachment; filename="{export_name(export)}"',
            "Content-Length": str(export.size),
            "Repr-Digest": repr_digest(bytes.fromhex(export.sha256)),
        },
    )


def dossier_file(actor: Principal, *, release_id: int, file_format: str) -> HttpResponse:
    """The frozen dossier in one format, with its digest (RFC 9530)."""
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
    """The evidence pack of a release, with the deployments under it."""
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


def streamed_response(
    request: HttpRequest, chunks: Iterator[bytes], content_type: str, headers: dict[str, str]
) -> StreamingHttpResponse:
    """Return a response that sends `chunks` as they come, never all of them in memory."""
    streamed: Any = _from_thread(chunks) if isinstance(request, ASGIRequest) else chunks
    return StreamingHttpResponse(
        streamed,
        content_type=content_type,
        headers={**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _from_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks for ASGI, which would collect a synchronous iterator whole in memory."""

    def following() -> bytes | None:
        return next(chunks, None)

    while (chunk := await sync_to_async(following)()) is not None:
        yield chunk


def _line_chunks(lines: Iterator[str]) -> Iterator[bytes]:
    while batch := list(islice(lines, LINES_AT_ONCE)):
        yield "".join(f"{line}\n" for line in batch).encode()


def _file_chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def repr_digest(sha256: bytes) -> str:
    """Return the value of a `Repr-Digest` header (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"
