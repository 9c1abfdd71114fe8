"""Upload of a file by `POST /v1/files`, written to disk while it arrives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings

from assay.gateway.http.asgi import ClientGone, Pace, Receive, Scope, header, too_large
from assay.gateway.http.errors import WrongContentType
from assay.gateway.stored.database_desk import DatabaseDesk
from assay.server.permits import holder_of
from assay.server.shares import Shares
from governance.errors import QuotaExceeded, Unavailable
from registry.catalog.multipart import Form, FormStream
from registry.files.content import ContentWriter
from registry.files.services import new_file_id

if TYPE_CHECKING:
    from assay.gateway.access.key_entries import KeyEntry

logger = logging.getLogger(__name__)

# Files that one gateway process receives at a time, shared among departments.
AT_ONCE = 16
# Bytes of a body that are buffered in memory before they are parsed and written.
BUFFER_BYTES = 1024 * 1024
# Maximum bytes of a body apart from its file: boundaries, headers and other fields.
OVERHEAD_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """A file on disk, and the form that it was sent in."""

    id: str
    form: Form
    size: int
    sha256: str


class FileDesk(DatabaseDesk):
    """Threads for database work on files and batches; limits concurrent uploads."""

    def __init__(self) -> None:
        super().__init__("files", refusal="Too many requests on files are waiting.")
        self._receiving = Shares(AT_ONCE)

    @contextmanager
    def place(self, key: KeyEntry) -> Iterator[None]:
        """Occupy one of the places for uploads until the block ends.

        Raises:
            QuotaExceeded: the department already has its share of places, or all are taken.
        """
        holder = holder_of(key.principal)
        if not self._receiving.take(holder):
            raise QuotaExceeded(
                "Your department is already sending its maximum of files to this gateway.",
                hint="Send fewer at a time.",
                retry_after=2,
            )
        try:
            yield
        finally:
            self._receiving.give_back(holder)

    async def receive(self, scope: Scope, receive: Receive) -> Received:
        """Return the file once it is complete; the caller keeps it or deletes its content.

        Raises:
            WrongContentType: the body is not a multipart form.
            TooLarge: it is over `ASSAY_FILE_MAX_BYTES`.
            BodySlow: it arrives too slowly.
            RequestInvalid: the form is malformed.
            ClientGone: the client hung up.
            Unavailable: the disk is full or not writable.
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
            raise Unavailable("The file store cannot be written to.", retry_after=30) from error

    async def _store(
        self, content_type: str, receive: Receive, writer: ContentWriter, limit: int
    ) -> Form:
        buffer, received, more = bytearray(), 0, True
        stream = FormStream(content_type, writer.write)
        receive = Pace(receive)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body, more = message.get("body", b""), message.get("more_body", False)
            received += len(body)
            buffer += body
            if received > limit + OVERHEAD_BYTES:
                raise too_large(limit)
            if len(buffer) >= BUFFER_BYTES or not more:
                data = bytes(buffer)
                buffer.clear()
                # In a thread, because a malicious form may take long to parse.
                await self.in_thread(lambda data=data: stream.feed(data))  # type: ignore[misc]
            if writer.size > limit:
                raise too_large(limit)
        return stream.end()
