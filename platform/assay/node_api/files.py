"""Bytes of what is assigned to a node, by SHA-256, whole or from an offset."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request

from assay.api.documentation import operation
from assay.downloads import repr_digest, streamed_response
from assay.node_api.endpoint import NodeEndpoint
from assay.node_api.joining import TAG
from assay.server.downloads import ungated
from governance.errors import DomainError, NotFound
from registry import store
from registry.manifests import ManifestFile
from registry.storage.backend import file_key
from workers.nodes.engine_side import node_file
from workers.nodes.models import Node

# One range, from an offset to an end or to the last byte.
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")
CONTENT_TYPE = "application/octet-stream"


class RangeNotSatisfiable(DomainError):
    """The range begins past the last byte (416)."""

    code = "range_not_satisfiable"
    status = 416
    title = "Range not satisfiable"


class NodeFileView(NodeEndpoint):
    """One file of a deployment that is assigned to the node."""

    @operation(
        TAG,
        "Bytes of a file, or of one range",
        answer=OpenApiResponse(OpenApiTypes.BINARY, description="The whole file."),
        also={
            206: OpenApiResponse(OpenApiTypes.BINARY, description="The range."),
            416: OpenApiResponse(OpenApiTypes.OBJECT, description="It begins past the end."),
        },
        parameters=[
            OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="bytes=1000-")
        ],
    )
    def get(self, request: Request, deployment_id: int, digest: str) -> HttpResponseBase:
        self.query()
        file = node_file(node=self.node, deployment_id=deployment_id, sha256=digest)
        return file_response(request._request, file, self.node)


def file_response(request: HttpRequest, file: ManifestFile, node: Node) -> HttpResponseBase:
    """Return the bytes of a stored file that the request asks for, as a download of the node. A
    range that is not one of the form `bytes=…` is ignored, as RFC 9110 has it.

    Raises:
        NotFound: the store does not have it.
        RangeNotSatisfiable: it begins past the end.
        StoreUnavailable: the store does not answer.
    """
    found = store.backend().find(file_key(file.sha256))
    if found is None or found.size != file.size:
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
        return HttpResponse(status=status, content_type=CONTENT_TYPE, headers=headers)
    response = streamed_response(
        request,
        _chunks(file.sha256, start, end - start),
        CONTENT_TYPE,
        {**headers, **ungated(node.name)},
    )
    response.status_code = status
    return response


def _range_of(request: HttpRequest, size: int) -> tuple[int, int]:
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    if found is None:
        return 0, size
    start = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    if found[2] and int(found[2]) < start:
        return 0, size
    if start >= size:
        raise RangeNotSatisfiable(f"The file has {size} bytes; the range begins at {start}.")
    return start, end


def _chunks(sha256: str, start: int, left: int) -> Iterator[bytes]:
    for chunk in store.backend().chunks(file_key(sha256), start):
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return
