"""Media of requests and answers, decoded in separate processes and passed on through the
short-lived store.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from django.conf import settings

from assay.server.shares import Shares
from governance.errors import DomainError, InvalidInput, NotFound, QuotaExceeded, Unavailable
from governance.usage.units import Unit
from registry.catalog.endpoints import MediaResult, Plan
from registry.catalog.inputs import MediaInput
from registry.media.checks import Media
from registry.media.decoders import IDLE_S, SECONDS, WAIT_S, Decoders
from registry.media.store import MediaReference, media_open, media_put, media_remove
from workers.references import contains, is_reference, replace_parts

# Media bodies that one gateway process keeps in memory at a time: in total, shared among
# departments, and per key, so that an application that sends slowly cannot block the others.
AT_ONCE = 16
AT_ONCE_PER_KEY = 4
# Time in which the decoding of a request's last file must begin, in seconds.
DECODE_S = 60.0
STORED_WITHIN_S = DECODE_S + WAIT_S + SECONDS
T = TypeVar("T")
_PIXELS_PER_MEGAPIXEL = 1_000_000
# Base64 is a third longer than the media; the rest of the body is short.
_OVERHEAD_BYTES = 64 * 1024


def media_body_limit() -> int:
    """Return the maximum size of a body with media, in bytes."""
    return math.ceil(settings.MEDIA_LIMITS.bytes * 4 / 3) + _OVERHEAD_BYTES


class MediaDesk:
    """Limits the memory that media bodies use, and manages the processes that decode files."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._places = Shares(AT_ONCE)
        self.decoders = Decoders(settings.MEDIA_LIMITS)
        self.threads = ThreadPoolExecutor(2, thread_name_prefix="assay-media")
        self.decoding = ThreadPoolExecutor(
            self.decoders.threads, thread_name_prefix="assay-decoding"
        )
        self._expiring: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the decoding processes without waiting for them."""
        self.decoding.submit(self.decoders.prepare)

    def decoded(self) -> None:
        """Prepare processes for the next files, and schedule the end of idle ones."""
        if self.decoders.short:
            self.decoding.submit(self.decoders.prepare)
        if self._expiring is None:
            self._expiring = asyncio.get_running_loop().call_later(IDLE_S, self._expire)

    def _expire(self) -> None:
        self._expiring = None
        self.decoding.submit(self.decoders.prepare)
        if self.decoders.idle:
            self._expiring = asyncio.get_running_loop().call_later(IDLE_S, self._expire)

    def open(self, key: str, holder: str) -> RequestMedia:
        """Return the media of a new request that `key` (a public ID) of the department `holder`
        sends.

        Raises:
            QuotaExceeded: the key or department already sends the maximum number at a time.
            Unavailable: the process already receives the maximum number.
        """
        if self._open.total() >= AT_ONCE:
            raise Unavailable("Too many media files are being received.", retry_after=2)
        if self._open[key] >= AT_ONCE_PER_KEY:
            raise QuotaExceeded(
                f"This key is already sending {self._open[key]} media files to this gateway.",
                hint="Send fewer at a time.",
                retry_after=2,
            )
        if not self._places.take(holder):
            raise QuotaExceeded(
                "Your department is already sending its maximum of media files to this gateway.",
                hint="Send fewer at a time.",
                retry_after=2,
            )
        self._open[key] += 1
        return RequestMedia(self, key, holder, lambda: self._give_back(key, holder))

    def answering(self, key: str, holder: str) -> RequestMedia:
        """Return the media of a request with a small body or none; its answer may have media."""
        return RequestMedia(self, key, holder, None)

    def _give_back(self, key: str, holder: str) -> None:
        self._places.give_back(holder)
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]

    async def stop(self) -> None:
        """End the processes and wait for the threads."""
        if self._expiring is not None:
            self._expiring.cancel()
        await asyncio.to_thread(self.decoders.close)
        for threads in (self.threads, self.decoding):
            await asyncio.to_thread(threads.shutdown)


class RequestMedia:
    """The media of one request. Call `close` after the answer was sent.

    Attributes:
        received: its body occupies one of the few places for large bodies.
        expected: its plan may contain media.
    """

    def __init__(
        self, desk: MediaDesk, key: str, holder: str, give_back: Callable[[], None] | None
    ) -> None:
        self.received = self.expected = give_back is not None
        self._desk = desk
        self._key, self._holder = key, holder
        self._give_back = give_back
        self._stored: list[MediaReference] = []

    @property
    def holds_anything(self) -> bool:
        """True if `close` has something to release."""
        return self._give_back is not None or bool(self._stored)

    async def in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        """Return the result of a call that would block other requests on the event loop."""
        return await asyncio.get_running_loop().run_in_executor(
            self._desk.threads, call, *arguments
        )

    def has_files(self, plan: Plan) -> bool:
        """Return true if a plan contains media; if not, release the place of its body."""
        has_media = contains(plan.inputs.to_wire(), _is_media)
        if not has_media:
            self._release()
        return has_media

    async def store(self, plan: Plan, unit: Unit, deployment_id: int) -> tuple[dict[str, Any], int]:
        """Check the content of each media input, store it, and replace it by a reference.

        Returns:
            The inputs for the worker, and the maximum units of the request.

        Raises:
            MediaRejected: a file is of another kind, out of bounds, or damaged.
            InvalidInput: decoding all of them took too long.
            QuotaExceeded: too many files of this key wait.
            Unavailable: too many files are being decoded, or the store is full.
        """
        inputs = plan.inputs.to_wire()
        files: list[MediaInput] = []
        replace_parts(inputs, _is_media, files.append)
        media: list[Media] = []
        until = asyncio.get_running_loop().time() + DECODE_S
        for file in files:
            if asyncio.get_running_loop().time() > until:
                raise InvalidInput(
                    f"Decoding {len(media):,} of {len(files):,} files took {DECODE_S:g} s, the "
                    "limit for one request.",
                    hint="Send fewer or smaller files at a time.",
                )
            media.append(await self._measured(file))
        stored = await self.in_thread(self._store, inputs, media, deployment_id)
        self._release()
        return stored, _units(plan, unit, media)

    async def _measured(self, file: MediaInput) -> Media:
        decoders, threads = self._desk.decoders, self._desk.decoding
        measure = partial(
            decoders.measure, file.data, kind=file.kind, what=file.param, owner=self._key
        )
        try:
            async with decoders.place(file.kind, self._key, self._holder):
                return await asyncio.get_running_loop().run_in_executor(threads, measure)
        except DomainError as error:
            error.param = file.param  # type: ignore[attr-defined]
            raise
        finally:
            self._desk.decoded()

    def _store(
        self, inputs: dict[str, Any], media: list[Media], deployment_id: int
    ) -> dict[str, Any]:
        types = iter([each.content_type for each in media])

        def keep(value: MediaInput) -> dict[str, Any]:
            reference = media_put(value.data, content_type=next(types), deployment_id=deployment_id)
            self._stored.append(reference)
            return reference.to_json()

        with_references: dict[str, Any] = replace_parts(inputs, _is_media, keep)
        return with_references

    async def results(self, results: list[Any]) -> list[Any]:
        """Return an answer's results with references replaced by the bytes of the media.

        Raises:
            Unavailable: a file is gone, or differs from its reference.
        """
        if not contains(results, is_reference):
            return results
        return await self.in_thread(self._results, results)

    def _results(self, results: list[Any]) -> list[Any]:
        def read(value: dict[str, Any]) -> MediaResult:
            fields = dict(value)
            details = fields.pop("details", {})
            try:
                reference = MediaReference.from_json(fields)
                self._stored.append(reference)
                data = media_open(reference).read()
            except (InvalidInput, NotFound) as error:
                raise Unavailable(
                    "The answer's media file is gone; send the request again.", retry_after=1
                ) from error
            return MediaResult(data, reference.content_type, details)

        with_bytes: list[Any] = replace_parts(results, is_reference, read)
        return with_bytes

    async def close(self) -> None:
        """Remove the files; a later sweep removes those that fail."""
        self._release()
        references, self._stored = self._stored, []
        if references:
            await self.in_thread(_remove, references)

    def _release(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


def _is_media(value: Any) -> bool:
    return isinstance(value, MediaInput)


def least_units(plan: Plan, unit: Unit) -> int:
    """Return the minimum units of a request whose media are not measured yet."""
    return 1 if unit in (Unit.AUDIO_SECONDS, Unit.MEGAPIXELS) else _units(plan, unit, [])


def _units(plan: Plan, unit: Unit, media: list[Media]) -> int:
    if unit is Unit.AUDIO_SECONDS and media:
        return max(1, math.ceil(sum(each.seconds or 0 for each in media)))
    if unit is Unit.MEGAPIXELS and media:
        pixels = sum((each.width or 0) * (each.height or 0) * (each.frames or 1) for each in media)
        return max(1, math.ceil(pixels / _PIXELS_PER_MEGAPIXEL))
    return plan.units or plan.tokens


def _remove(references: list[MediaReference]) -> None:
    for reference in references:
        try:
            media_remove(reference)
        except OSError:
            continue
