"""Receiving a file of `POST /v1/files`: to the disk as it comes, however large it is."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings

from assay.gateway.database_desk import DatabaseDesk
from assay.gateway.errors import WrongContentType
from assay.gateway.http import BodySlow, ClientGone, Receive, Scope, header, too_large
from governance.errors import QuotaExceeded, Unavailable
from registry.catalog.multipart import Form, FormStream
from registry.files.content import ContentWriter
from registry.files.services import new_file_id

if TYPE_CHECKING:
    from assay.gateway.key_entries import KeyEntry

logger = logging.getLogger(__name__)

# Files that one gateway process receives at a time: in all, and from one key.
AT_ONCE = 16
AT_ONCE_PER_KEY = 4
# Bytes of a file that are in memory before they are written.
BUFFER_BYTES = 1024 * 1024
# Bytes of a body besides its file: boundaries, headers and other fields.
OVERHEAD_BYTES = 512 * 1024
# Bytes that earn a body one more second, beyond those that the settings grant.
_LEAST_BYTES_PER_S = 16 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """A file that is on the disk, and the form that it came in."""

    id: str
    form: Form
    size: int
    sha256: str


class FileDesk(DatabaseDesk):
    """Threads for work on files and batches in the database; bounds the uploads under way."""

    def __init__(self) -> None:
        super().__init__("files", refusal="Too many requests on files are waiting.")
        self._receiving: Counter[str] = Counter()

    @contextmanager
    def place(self, key: KeyEntry) -> Iterator[None]:
        """Hold one of the places for uploads until the block ends.

        Raises:
            QuotaExceeded: the key has taken its places.
            Unavailable: all places are taken.
        """
        if self._receiving[key.public_id] >= AT_ONCE_PER_KEY:
            raise QuotaExceeded(
                f"This key is already sending {AT_ONCE_PER_KEY} files to this gateway.",
                hint="Send fewer at a time.",
                retry_after=2,
            )
        if self._receiving.total() >= AT_ONCE:
            raise Unavailable("Too many files are being received.", retry_after=2)
        self._receiving[key.public_id] += 1
        try:
            yield
        finally:
            self._receiving[key.public_id] -= 1
            self._receiving += Counter()

    async def receive(self, scope: Scope, receive: Receive) -> Received:
        """Return the file once it is whole; the caller keeps it, or deletes its content.

        Raises:
            WrongContentType: the body is not a multipart form.
            TooLarge: it is over `ASSAY_FILE_MAX_BYTES`.
            BodySlow: it comes too slowly.
            RequestInvalid: the form is malformed.
            ClientGone: the client hung up.
            Unavailable: the disk is full, or not to be written to.
        """
        content_type = (header(scope, b"content-type") or b"").decode("latin-1")
        if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
            raise WrongContentType("Send the file as multipart/form-data, in the field `file`.")
        limit = settings.FILE_MAX_BYTES
        declared = header(scope, b"content-length") or b"0"
        if not declared.isdigit() or int(declared[:20]) > limit + OVERHEAD_BYTES:
            raise too_large(limit)
        id = new_file_id()  # noqa: A001
        try:
            writer = await self.in_thread(lambda: ContentWriter(id))
            try:
                form = await self._store(content_type, receive, writer, limit)
                return Received(id, form, writer.size, await self.in_thread(writer.finish))
            except BaseException:
                writer.discard()
                raise
        except OSError as error:
            logger.error("A file could not be written: %s", error)
            raise Unavailable("The store of files takes no more bytes.", retry_after=30) from error

    async def _store(
        self, content_type: str, receive: Receive, writer: ContentWriter, limit: int
    ) -> Form:
        buffer = bytearray()
        stream = FormStream(content_type, buffer.extend)
        loop, received, more = asyncio.get_running_loop(), 0, True
        started = loop.time()
        while more:
            due = started + settings.WEB_BODY_TIMEOUT_S + received / _LEAST_BYTES_PER_S
            try:
                async with asyncio.timeout_at(due):
                    message = await receive()
            except TimeoutError:
                raise BodySlow("The file did not arrive in time.") from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            body, more = message.get("body", b""), message.get("more_body", False)
            received += len(body)
            stream.feed(body)
            if writer.size + len(buffer) > limit or received > limit + OVERHEAD_BYTES:
                raise too_large(limit)
            if len(buffer) >= BUFFER_BYTES or not more:
                data = bytes(buffer)
                buffer.clear()
                await self.in_thread(lambda data=data: writer.write(data))  # type: ignore[misc]
        return stream.end()
