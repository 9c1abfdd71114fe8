"""Media of requests and results, as an engine worker reads and writes them. Knows no Django."""

from __future__ import annotations

from io import BytesIO
from typing import Protocol

from registry.media.store import MediaReference, media_open, media_put


class MediaFiles(Protocol):
    """The short-lived files of requests to one deployment each."""

    def read(self, deployment_id: int, reference: MediaReference) -> BytesIO:
        """Return the bytes of a reference, all of which have been hashed.

        Raises:
            DomainError: the file is gone, is another one, or cannot be reached.
        """

    def write(self, deployment_id: int, data: bytes, content_type: str) -> MediaReference:
        """Keep a file that a runner made, for the gateway.

        Raises:
            DomainError: there is no room for it, or it cannot be sent.
        """


class StoredMedia:
    """Implements `MediaFiles` in the folder that gateways and workers of one machine share."""

    def read(self, deployment_id: int, reference: MediaReference) -> BytesIO:
        return media_open(reference)

    def write(self, deployment_id: int, data: bytes, content_type: str) -> MediaReference:
        return media_put(data, content_type=content_type, deployment_id=deployment_id)
