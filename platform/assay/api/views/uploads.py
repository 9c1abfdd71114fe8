"""Uploads in parts by the tus protocol 1.0: https://tus.io/protocols/resumable-upload.

Extensions: creation, checksum, expiration, termination. An upload can be created with the
protocol's headers or with a JSON body.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils.http import http_date
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.parsers import OctetStreamParser, StrictJSONParser
from governance.errors import DomainError, InvalidInput, WrongState
from governance.schemas import Schema, parsed
from registry.datasets.selectors import dataset_get
from registry.uploads.models import Upload, UploadKind
from registry.uploads.schemas import NewUpload
from registry.uploads.selectors import upload_get, uploads_of
from registry.uploads.services import upload_append, upload_create, upload_discard
from registry.versions.selectors import model_get

VERSION = "1.0.0"
EXTENSIONS = "creation,checksum,expiration,termination"
_WHOLE = re.compile("[0-9]{1,18}")


class UploadAnswer(serializers.Serializer[Any]):
    """One upload. It is complete, and can be used, once `completed_at` is set; `sha256` is then
    that of the whole file."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    department = serializers.CharField(source="department.slug")
    target = serializers.CharField()
    filename = serializers.CharField()
    size = serializers.IntegerField()
    received = serializers.IntegerField()
    sha256 = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    completed_at = serializers.DateTimeField(allow_null=True)


class UnknownVersion(DomainError):
    """The client uses another version of tus (412)."""

    code = "tus_version"
    status = 412
    title = "Unknown protocol version"


class _TusEndpoint(Endpoint):
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        version = request.headers.get("Tus-Resumable", VERSION)
        if version != VERSION:
            raise UnknownVersion(
                f"The server supports version {VERSION} of the tus protocol, not {version[:20]!r}.",
                hint=f"Send Tus-Resumable: {VERSION}.",
            )

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        final = super().finalize_response(request, response, *args, **kwargs)
        final.headers["Tus-Resumable"] = VERSION
        return final

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Describe the parts of the protocol that this server supports."""
        return Response(
            status=204,
            headers={
                "Tus-Version": VERSION,
                "Tus-Extension": EXTENSIONS,
                "Tus-Checksum-Algorithm": "sha256",
                "Tus-Max-Size": str(max(settings.INTAKE_MAX_BYTES, settings.DATASET_MAX_BYTES)),
            },
        )


class UploadsView(_TusEndpoint):
    """The caller's own uploads."""

    ordering = ("created_at", "id")

    @operation("Uploads", "List your unfinished uploads", answer=UploadAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query_as(Schema)
        return self.page(uploads_of(self.actor), UploadAnswer)

    @operation(
        "Uploads",
        "Create an upload, whose bytes follow in parts",
        body=NewUpload,
        answer=UploadAnswer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        new_upload = self.announced(request)
        if new_upload.kind == UploadKind.INTAKE:
            department = model_get(actor=self.actor, name=new_upload.target).department
        else:
            department = dataset_get(actor=self.actor, name=new_upload.target).department
        upload = upload_create(
            actor=self.actor,
            department=department,
            kind=new_upload.kind,
            target=new_upload.target,
            filename=new_upload.filename,
            size=new_upload.size,
            sha256=new_upload.sha256 or "",
        )
        answer = self.answer(upload, UploadAnswer, status=201)
        answer["Location"] = f"{request.path}/{upload.pk}"
        return _with_offset(answer, upload)

    def announced(self, request: Request) -> NewUpload:
        """Return the new upload from its headers, or else from the body."""
        length = request.headers.get("Upload-Length")
        if length is None:
            return self.body_as(NewUpload)
        metadata = _metadata(request.headers.get("Upload-Metadata", ""))
        return parsed(NewUpload, {**metadata, "size": _whole("Upload-Length", length)})


class UploadView(_TusEndpoint):
    """One of the caller's uploads."""

    upload_limit = "UPLOAD_CHUNK_BYTES"
    parser_classes = (OctetStreamParser, StrictJSONParser)

    def allow_body(self, upload_id: UUID) -> None:
        upload_get(actor=self.actor, id=upload_id)

    @operation("Uploads", "Get one of your uploads", answer=UploadAnswer)
    def get(self, request: Request, upload_id: UUID) -> Response:
        self.query_as(Schema)
        upload = upload_get(actor=self.actor, id=upload_id)
        return _with_offset(self.answer(upload, UploadAnswer), upload)

    @extend_schema(exclude=True)
    def head(self, request: Request, upload_id: UUID) -> Response:
        """Return the offset in headers."""
        return _with_offset(Response(status=200), upload_get(actor=self.actor, id=upload_id))

    @operation(
        "Uploads",
        "Send the next bytes of an upload",
        body={"application/offset+octet-stream": bytes},
        answer=None,
        status=204,
        parameters=[
            OpenApiParameter(
                "Upload-Offset", int, OpenApiParameter.HEADER, required=True,
                description="Number of bytes that the server has; other numbers result in 409.",
            ),
            OpenApiParameter(
                "Upload-Checksum", str, OpenApiParameter.HEADER,
                description="`sha256` and the base64 digest of these bytes.",
            ),
        ],
    )  # fmt: skip
    def patch(self, request: Request, upload_id: UUID) -> Response:
        # Before parsing the body, so that other callers get 404 regardless of the body.
        current = upload_get(actor=self.actor, id=upload_id)
        offset_text = request.headers.get("Upload-Offset")
        if offset_text is None:
            raise WrongState(
                f"Upload {current.pk} continues at byte {current.received}; no offset was stated.",
                code="offset_mismatch",
                hint="Send Upload-Offset.",
            )
        offset = _whole("Upload-Offset", offset_text)
        checksum = _checksum(request.headers.get("Upload-Checksum"))
        data: Any = request.data
        if not isinstance(data, bytes):
            raise InvalidInput(
                "The bytes of an upload are application/offset+octet-stream.",
                hint="Send them with that Content-Type.",
            )
        upload = upload_append(
            actor=self.actor, upload_id=upload_id, offset=offset, data=data, sha256=checksum
        )
        return _with_offset(Response(status=204), upload)

    @operation("Uploads", "Discard an upload and its bytes", answer=None, status=204)
    def delete(self, request: Request, upload_id: UUID) -> Response:
        self.query_as(Schema)
        upload_discard(actor=self.actor, upload_id=upload_id)
        return Response(status=204)


def _with_offset(answer: Response, upload: Upload) -> Response:
    answer["Upload-Offset"] = str(upload.received)
    answer["Upload-Length"] = str(upload.size)
    answer["Upload-Expires"] = http_date(upload.expires_at.timestamp())
    answer["Cache-Control"] = "no-store"
    return answer


def _whole(name: str, text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise InvalidInput(
            f"The header {name} is not a whole number.", fields={name: ["A whole number."]}
        )
    return int(text)


def _checksum(text: str | None) -> bytes | None:
    if text is None:
        return None
    algorithm, _, encoded = text.partition(" ")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if algorithm != "sha256" or len(digest) != 32:
        raise InvalidInput(
            "Upload-Checksum is not `sha256` and a base64 digest.",
            fields={"Upload-Checksum": ["sha256 and a base64 digest."]},
        )
    return digest


def _metadata(text: str) -> dict[str, str]:
    """Parse `Upload-Metadata`: names with base64 values, separated by commas."""
    values = {}
    for pair in text[:8192].split(",") if text else []:
        name, _, value = pair.strip().partition(" ")
        try:
            values[name] = base64.b64decode(value, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            raise InvalidInput(
                f"Upload-Metadata has no base64 text for {name[:40]!r}.",
                fields={"Upload-Metadata": ["Names with base64 values."]},
            ) from None
    return values
