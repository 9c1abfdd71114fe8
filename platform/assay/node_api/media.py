"""Media of requests to what is placed on a node, and those that its runners make."""

from __future__ import annotations

from typing import Any

from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.fields import Choice, Line, StrictSerializer
from assay.api.parsers import OctetStreamParser
from assay.downloads import BINARY, streamed_response
from assay.node_api.endpoint import NodeEndpoint
from assay.node_api.joining import TAG
from assay.server.downloads import ungated
from governance.errors import InvalidInput, NotFound
from registry.media.checks import CONTENT_TYPES, content_type_of
from registry.media.store import MediaReference, media_chunks, media_put, media_size
from workers.nodes.engine_side import node_media_require, node_media_take_room


class MediaQuery(StrictSerializer):
    """Name and size of the file, as the request's reference states them."""

    media = serializers.RegexField("^[0-9a-f]{32}$")
    size = Line(max_length=12)


class NodeMediaFileView(NodeEndpoint):
    """A file of a request."""

    @operation(
        TAG,
        "Bytes of a request's media file",
        query=MediaQuery,
        answer=OpenApiResponse(OpenApiTypes.BINARY, description="The file."),
    )
    def get(self, request: Request, deployment_id: int, digest: str) -> HttpResponseBase:
        given = self.query(MediaQuery)
        node_media_require(node=self.node, deployment_id=deployment_id)
        size = int(given["size"]) if given["size"].isascii() and given["size"].isdigit() else -1
        reference = MediaReference(given["media"], digest, BINARY, size)
        if not reference.is_of(deployment_id) or media_size(reference) != size:
            raise NotFound("The media file is not there.")
        headers = {"Content-Length": str(size), **ungated(self.node.name)}
        return streamed_response(request._request, media_chunks(reference), BINARY, headers)


class MediaResultQuery(StrictSerializer):
    """The kind of file."""

    content_type = Choice(choices=sorted(CONTENT_TYPES))


class MediaReferenceAnswer(serializers.Serializer[Any]):
    """The reference that the reply names in place of the file."""

    media = serializers.CharField()
    sha256 = serializers.CharField()
    content_type = serializers.CharField()
    size = serializers.IntegerField()


class NodeMediaView(NodeEndpoint):
    """Files that runners make."""

    parser_classes = (OctetStreamParser,)
    upload_limit = "MEDIA_MAX_BYTES"

    def allow_body(self, deployment_id: int) -> None:
        node_media_require(node=self.node, deployment_id=deployment_id)

    @operation(
        TAG,
        "Send a file of an answer",
        body={"application/offset+octet-stream": bytes},
        query=MediaResultQuery,
        answer=MediaReferenceAnswer,
        status=201,
    )
    def post(self, request: Request, deployment_id: int) -> Response:
        content_type = self.query(MediaResultQuery)["content_type"]
        node_media_require(node=self.node, deployment_id=deployment_id)
        data: Any = request.data
        if not isinstance(data, bytes) or content_type_of(data) != content_type:
            raise InvalidInput(f"The body is not a file of the kind {content_type}.")
        node_media_take_room(node=self.node, size=len(data))
        made = media_put(data, content_type=content_type, deployment_id=deployment_id)
        return self.answer(made, MediaReferenceAnswer, status=201)
