"""Files of deployments, jobs and requests, by SHA-256; and files that runs and runners create."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import RANGES, operation
from assay.api.parsers import OctetStreamParser, StrictJSONParser
from assay.downloads import BINARY, stored_file, streamed_response
from assay.node_api.endpoint import TAG, JobEndpoint, NodeEndpoint, answered, parameters_of
from assay.server.downloads import ungated
from governance.errors import InvalidInput, NotFound
from governance.schemas import Schema
from registry.manifests import CHUNK_BYTES, ManifestFile, open_beneath
from registry.media.checks import content_type_of
from registry.media.store import MediaReference, media_chunks, media_put, media_size
from registry.storage import store
from registry.storage.backend import file_key
from workers.control.jobs import Offset, UploadQuery
from workers.control.protocol import MediaAnswer, MediaQuery, MediaResultQuery
from workers.jobs.arrivals import arrival_append, arrival_offset
from workers.nodes.engine_side import (
    node_file,
    node_media_require,
    node_media_take_room,
    node_reference_file,
)
from workers.nodes.job_side import node_job_file
from workers.nodes.models import Node
from workers.nodes.order_files import JobFile

FILE = OpenApiResponse(OpenApiTypes.BINARY, description="The file.")
OCTETS = {"application/offset+octet-stream": bytes}


class NodeFileView(NodeEndpoint):
    """One file of a deployment that is assigned to the node."""

    @operation(TAG, "Bytes of a file, or of one range", **RANGES)
    def get(self, request: Request, deployment_id: int, digest: str) -> HttpResponseBase:
        self.query_as(Schema)
        file = node_file(node=self.node, deployment_id=deployment_id, sha256=digest)
        return stored_file(request._request, file, self.node.name)


class NodeReferenceFileView(NodeEndpoint):
    """A file of a request that is compared before a deployment serves."""

    @operation(TAG, "Bytes of a file of these requests", answer=FILE)
    def get(self, request: Request, deployment_id: int, digest: str) -> HttpResponseBase:
        self.query_as(Schema)
        file = node_reference_file(node=self.node, deployment_id=deployment_id, sha256=digest)
        return HttpResponse(file, content_type=BINARY)


class NodeMediaFileView(NodeEndpoint):
    """A media file of a request to a deployment on the node."""

    @operation(
        TAG,
        "Bytes of a request's media file",
        parameters=parameters_of(MediaQuery),
        answer=FILE,
    )
    def get(self, request: Request, deployment_id: int, digest: str) -> HttpResponseBase:
        query = self.query_message(MediaQuery)
        node_media_require(node=self.node, deployment_id=deployment_id)
        reference = MediaReference(query.media, digest, BINARY, query.size)
        if not reference.is_of(deployment_id) or media_size(reference) != query.size:
            raise NotFound("The media file does not exist.")
        headers = {"Content-Length": str(query.size), **ungated(self.node.name)}
        return streamed_response(request._request, media_chunks(reference), BINARY, headers)


class NodeMediaView(NodeEndpoint):
    """Media files that runners create."""

    parser_classes = (OctetStreamParser,)
    upload_limit = "MEDIA_MAX_BYTES"

    def allow_body(self, deployment_id: int) -> None:
        node_media_require(node=self.node, deployment_id=deployment_id)

    @operation(
        TAG,
        "Send a file of an answer",
        body=OCTETS,
        parameters=parameters_of(MediaResultQuery),
        answer=MediaAnswer,
        status=201,
    )
    def post(self, request: Request, deployment_id: int) -> HttpResponse:
        content_type = self.query_message(MediaResultQuery).content_type
        node_media_require(node=self.node, deployment_id=deployment_id)
        data: Any = request.data
        if not isinstance(data, bytes) or content_type_of(data) != content_type:
            raise InvalidInput(f"The body is not a file of type {content_type}.")
        node_media_take_room(node=self.node, size=len(data))
        reference = media_put(data, content_type=content_type, deployment_id=deployment_id)
        return answered(MediaAnswer(reference), 201)


class NodeJobFileView(JobEndpoint):
    """One file of a job's order."""

    @operation(TAG, "Bytes of a file of an order, or of one range", **RANGES)
    def get(self, request: Request, job_id: UUID, fence: int, digest: str) -> HttpResponseBase:
        self.query_as(Schema)
        file = node_job_file(node=self.node, job_id=job_id, fence=fence, sha256=digest)
        if file.folder is not None:
            return _from_folder(request, file, file.folder, self.node)
        entry = store.backend().find(file_key(digest))
        if entry is None:
            raise NotFound("The file is missing from the artifact store.", code="file_missing")
        stored = ManifestFile(digest[:12], entry.size, digest)
        return stored_file(request._request, stored, self.node.name)


def _from_folder(request: Request, file: JobFile, folder: Path, node: Node) -> HttpResponseBase:
    """Return a whole file of a delivery or a checkpoint, which is not in the store.

    Other processes write to these folders, so no part of the path may be a symbolic link.

    Raises:
        NotFound: it is missing, is not a plain file, or has a size that differs from the order.
    """
    try:
        with open_beneath(folder, file.path) as opened:
            size = os.fstat(opened.fileno()).st_size
    except OSError:
        size = None
    if size is None or size != file.size:
        raise NotFound("The file is missing.", code="file_missing")
    headers = {"Content-Length": str(size), "ETag": f'"{file.sha256}"'}
    if request.method == "HEAD":
        return Response(status=200, content_type=BINARY, headers=headers)

    def chunks() -> Iterator[bytes]:
        # A file that has grown since would break the answer's framing.
        left = size
        with open_beneath(folder, file.path) as opened:
            while chunk := opened.read(min(CHUNK_BYTES, left)):
                left -= len(chunk)
                yield chunk

    headers_of_download = {**headers, **ungated(node.name)}
    return streamed_response(request._request, chunks(), BINARY, headers_of_download)


class NodeJobUploadView(JobEndpoint):
    """One file that the run has created."""

    parser_classes = (OctetStreamParser, StrictJSONParser)

    @operation(
        TAG, "How much of a file has arrived", parameters=parameters_of(UploadQuery), answer=Offset
    )
    def get(self, request: Request, job_id: UUID, fence: int, digest: str) -> HttpResponse:
        query, claim = self.query_message(UploadQuery), self.claim(job_id, fence)
        return answered(arrival_offset(claim, sha256=digest, size=query.size))

    @operation(
        TAG,
        "Send the next bytes of a file",
        body=OCTETS,
        parameters=parameters_of(UploadQuery),
        answer=Offset,
    )
    def patch(self, request: Request, job_id: UUID, fence: int, digest: str) -> HttpResponse:
        claim, query = self.claim(job_id, fence), self.query_message(UploadQuery)
        # An empty body is not parsed. It is sent for an empty file, or to continue with hashing.
        data: Any = request.data or b""
        if not isinstance(data, bytes):
            raise InvalidInput("The bytes of a file are application/offset+octet-stream.")
        return answered(
            arrival_append(claim, sha256=digest, size=query.size, offset=query.offset, data=data)
        )
