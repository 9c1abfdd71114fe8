"""Media of requests over HTTP. They stay in memory: a node's disk never holds them."""

from __future__ import annotations

import hashlib
from io import BytesIO
from urllib.parse import urlencode

import httpx

from governance.errors import NotFound, Unavailable
from registry.manifests import CHUNK_BYTES
from registry.media.store import MediaReference
from workers.remote.client import NodeClient


class RemoteMedia:
    """Implements `MediaFiles`."""

    def __init__(self, client: NodeClient) -> None:
        self._client = client

    def read(self, deployment_id: int, reference: MediaReference) -> BytesIO:
        query = urlencode({"media": reference.media, "size": reference.size})
        path = f"deployments/{deployment_id}/media/{reference.sha256}?{query}"
        data = bytearray()
        try:
            with self._client.stream(path) as answer:
                for chunk in answer.iter_bytes(CHUNK_BYTES):
                    data += chunk
                    if len(data) > reference.size:
                        break
        except httpx.TransportError as error:
            raise Unavailable(
                f"The media file did not arrive: {type(error).__name__}.", retry_after=1
            ) from error
        if len(data) != reference.size or hashlib.sha256(data).hexdigest() != reference.sha256:
            raise NotFound("The media file that arrived is not the one that the reference names.")
        return BytesIO(data)

    def write(self, deployment_id: int, data: bytes, content_type: str) -> MediaReference:
        answer = self._client.send(
            "POST",
            f"deployments/{deployment_id}/media",
            params={"content_type": content_type},
            headers={"Content-Type": "application/offset+octet-stream"},
            content=data,
        )
        return MediaReference.from_json(answer.json())
