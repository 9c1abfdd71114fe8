"""Media of requests and answers: checked by content, moved through the short-lived store."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.conf import settings

from governance.errors import InvalidInput, NotFound, QuotaExceeded, Unavailable
from governance.usage.units import Unit
from registry.catalog.endpoints import Endpoint, MediaResult, Plan
from registry.catalog.inputs import MediaInput
from registry.catalog.requests import Body
from registry.media.checks import Media, check_media
from registry.media.errors import MediaRejected
from registry.media.store import MediaReference, media_open, media_put, media_remove
from workers.references import contains, is_reference, swapped

# Bodies of media that one gateway process holds in memory at a time: in all, and for one key, so
# that no application keeps the others out by sending slowly.
AT_ONCE = 16
AT_ONCE_PER_KEY = 4
T = TypeVar("T")
_PIXELS_PER_MEGAPIXEL = 1_000_000
# A body in base64 is a third longer; what stands around the media is short.
_OVERHEAD_BYTES = 64 * 1024


def media_body_limit() -> int:
    """Return how many bytes a body that carries media may have."""
    return math.ceil(settings.MEDIA_LIMITS.bytes * 4 / 3) + _OVERHEAD_BYTES


class MediaDesk:
    """Bounds what media bodies take of a gateway's memory, and works on files in threads."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="assay-media")
        # A video may take its whole 30 s; other media do not wait for it.
        self._video_threads = ThreadPoolExecutor(2, thread_name_prefix="assay-video")

    def open(self, key: str) -> RequestMedia:
        """Return the media of a new request that `key` (a public ID) sends.

        Raises:
            QuotaExceeded: the key sends as many at a time as one key may.
            Unavailable: as many as fit into memory are being received already.
        """
        if self._open[key] >= AT_ONCE_PER_KEY:
            raise QuotaExceeded(
                f"This key is already sending {AT_ONCE_PER_KEY} media files to this gateway.",
                hint="Send fewer at a time.",
                retry_after=2,
            )
        if self._open.total() >= AT_ONCE:
            raise Unavailable("Too many media files are being received.", retry_after=2)
        self._open[key] += 1
        return RequestMedia(self._threads, self._video_threads, lambda: self._give_back(key))

    def answering(self) -> RequestMedia:
        """Return the media of a request that carries none; its answer may."""
        return RequestMedia(self._threads, self._video_threads, None)

    def _give_back(self, key: str) -> None:
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]

    async def stop(self) -> None:
        """Wait for the threads."""
        for threads in (self._threads, self._video_threads):
            await asyncio.to_thread(threads.shutdown)


class RequestMedia:
    """The media of one request. `close` it when the answer has left.

    Attributes:
        received: Its body holds one of the few places for large bodies.
        expected: Its plan may hold media.
    """

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        video_threads: ThreadPoolExecutor,
        give_back: Callable[[], None] | None,
    ) -> None:
        self.received = self.expected = give_back is not None
        self._threads = threads
        self._video_threads = video_threads
        self._give_back = give_back
        self._kept: list[MediaReference] = []

    @property
    def holds_anything(self) -> bool:
        """Return whether `close` has something to do."""
        return self._give_back is not None or bool(self._kept)

    async def read(self, endpoint: Endpoint, body: Body, request_id: str, name: str) -> Plan:
        """Read a body in a thread: parsing 33 MiB would hold up every other request.

        Raises:
            RequestInvalid: the first thing wrong with the body.
        """
        return await self.in_thread(endpoint.plan, body, request_id, name)

    async def in_thread(self, call: Callable[..., T], *given: Any) -> T:
        """Return the result of a call that would hold up all other requests."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *given)

    async def store(self, plan: Plan, unit: Unit, deployment_id: int) -> tuple[dict[str, Any], int]:
        """Check each media input by content and put a reference in its place, for a deployment.

        Returns:
            The inputs as they go to the worker, and the units that the request costs at most.

        Raises:
            MediaRejected: a file is of another kind, out of bounds, or broken.
            Unavailable: the store is full.
        """
        loop = asyncio.get_running_loop()
        given = plan.inputs.to_wire()
        threads = self._video_threads if contains(given, _is_video) else self._threads
        stored, media = await loop.run_in_executor(threads, self._store, given, deployment_id)
        self._release()
        return stored, _units(plan, unit, media)

    def _store(
        self, given: dict[str, Any], deployment_id: int
    ) -> tuple[dict[str, Any], list[Media]]:
        found: list[Media] = []

        def keep(value: MediaInput) -> dict[str, Any]:
            checked = _checked(value)
            reference = media_put(
                value.data, content_type=checked.content_type, deployment_id=deployment_id
            )
            self._kept.append(reference)
            found.append(checked)
            return reference.to_json()

        return swapped(given, lambda value: isinstance(value, MediaInput), keep), found

    async def results(self, given: list[Any]) -> list[Any]:
        """Return an answer's results with the bytes of media in place of their references.

        Raises:
            Unavailable: a file is gone, or differs from its reference.
        """
        if not contains(given, is_reference):
            return given
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._results, given)

    def _results(self, given: list[Any]) -> list[Any]:
        def read(value: dict[str, Any]) -> MediaResult:
            stated = dict(value)
            details = stated.pop("details", {})
            try:
                reference = MediaReference.from_json(stated)
                self._kept.append(reference)
                data = media_open(reference).read()
            except (InvalidInput, NotFound) as error:
                raise Unavailable(
                    "The answer's media file is gone; send the request again.", retry_after=1
                ) from error
            return MediaResult(data, reference.content_type, details)

        found: list[Any] = swapped(given, is_reference, read)
        return found

    async def close(self) -> None:
        """Remove the files; what fails is swept later."""
        self._release()
        kept, self._kept = self._kept, []
        if kept:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, _remove, kept)

    def _release(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


def _is_video(value: Any) -> bool:
    return isinstance(value, MediaInput) and value.kind == "video"


def _checked(value: MediaInput) -> Media:
    try:
        return check_media(value.data, settings.MEDIA_LIMITS, kind=value.kind, what=value.param)
    except MediaRejected as error:
        error.param = value.param  # type: ignore[attr-defined]
        raise


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
