"""Decode files of requests in processes that were started before, each of which ends with its file.

The process that asks loads no decoder. Images and recordings have places of their own, so that a
slow video keeps none of them waiting; of each kind, one key never holds all places.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

from governance.errors import InvalidInput, Unavailable
from registry.media.checks import Kind, Media, check_head
from registry.media.errors import MediaBusy, MediaRejected
from registry.media.limits import MediaLimits
from registry.sandbox import landlock
from registry.sandbox.places import FairPlaces
from registry.sandbox.readers import ENVIRONMENT, Reach, reader_command
from registry.sandbox.source import BoundedProcess, Ended, ProcessSource, TimedOut

_MODULE = "registry.media.decoder_process"
# One more than processors: what one key decodes leaves a place for another.
AT_ONCE = max(3, (os.cpu_count() or 1) + 1)
VIDEOS_AT_ONCE = 2
WAIT_S = 10.0
# The kernel counts a process's own time (`decoder_process.py`); this ends one on a machine that is
# too busy to run it.
SECONDS = 45.0
MAX_REQUEST_BYTES = 64 * 1024
_READY = 2


class Decoders:
    """Processes that decode, one file each. Any number of threads may use them."""

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._source: ProcessSource | None = None
        self._ready: list[BoundedProcess] = []
        self._closed = False
        self._places = FairPlaces(
            AT_ONCE, wait_s=WAIT_S, refusal="Too many files are being decoded at this moment."
        )
        self._video_places = FairPlaces(
            VIDEOS_AT_ONCE,
            wait_s=WAIT_S,
            refusal="Too many videos are being decoded at this moment.",
        )

    @property
    def threads(self) -> int:
        """How many threads can use it at a time without waiting for each other."""
        return AT_ONCE + VIDEOS_AT_ONCE

    @asynccontextmanager
    async def place(self, kind: Kind, owner: str) -> AsyncIterator[None]:
        """Hold a place to decode a file, for a key or a person.

        Raises:
            QuotaExceeded: too many of this owner's files wait.
            Unavailable: too many files are being decoded.
        """
        places = self._video_places if kind == "video" else self._places
        async with places.place_async(owner):
            yield

    def prepare(self) -> None:
        """Have processes ready for the next files. Where none can be started, `measure` says so."""
        with suppress(Ended):
            while True:
                with self._lock:
                    if self._closed or len(self._ready) >= _READY:
                        return
                process = self._forked()
                with self._lock:
                    if not self._closed:
                        self._ready.append(process)
                        continue
                process.close()

    def measure(self, data: bytes, *, kind: Kind | None, what: str) -> Media:
        """Decode a file to its end and return its measures. `what` names it in sentences.

        Raises:
            MediaRejected: it is another kind of file, out of bounds, or broken, or it broke the
                process that decodes it.
            Unavailable: no process could be started, or the machine is too busy.
        """
        content_type, kind = check_head(data[:64], len(data), self._limits, kind=kind, what=what)
        file = os.memfd_create("assay-media", os.MFD_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            found = self._asked(file, kind, what)
        finally:
            os.close(file)
        media = _media(found, data, what)
        if (media.content_type, media.kind) != (content_type, kind):
            raise _broken(what)
        return media

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            source, ready = self._source, self._ready
            self._ready = []
        for process in ready:
            process.close()
        if source is not None:
            source.close()

    def _asked(self, file: int, kind: Kind, what: str) -> Any:
        with self._lock:
            process = self._ready.pop() if self._ready else None
        try:
            process = process or self._forked()
        except Ended as error:
            raise Unavailable("No process can decode the file now.", retry_after=5) from error
        try:
            return json.loads(process.ask({"kind": kind, "what": what[:1000]}, file))
        except TimedOut as error:
            raise MediaBusy(
                f"{what} could not be decoded within {SECONDS:g} s: the machine is busy.",
                retry_after=5,
            ) from error
        except Ended as error:
            raise MediaRejected(
                f"{what} broke the process that decodes it, or took more time or memory than a "
                "file of its size may.",
                hint="Save it again; send it with fewer pixels or frames, or in parts.",
            ) from error
        except ValueError as error:
            raise _broken(what) from error
        finally:
            process.close()

    def _forked(self) -> BoundedProcess:
        with self._lock:
            if self._closed:
                raise Ended("it was closed")
            if self._source is None:
                self._source = _source(self._limits)
            source = self._source
        return source.process()


def _source(limits: MediaLimits) -> ProcessSource:
    confined = landlock.abi() >= landlock.LEAST_ABI
    return ProcessSource(
        reader_command(_MODULE, Reach(), forks=True),
        {"limits": asdict(limits), "confined": confined},
        environment=ENVIRONMENT,
        seconds=SECONDS,
        max_input=MAX_REQUEST_BYTES,
    )


def _media(found: Any, data: bytes, what: str) -> Media:
    """Return what a process wrote, which is not trusted. Raises MediaRejected."""
    match found:
        case {"refused": str(message), "hint": str(hint)}:
            raise MediaRejected(message[:2000], hint=hint[:500])
        case {"media": dict(measures)}:
            measures["sha256"] = hashlib.sha256(data).hexdigest()
            measures["size_bytes"] = len(data)
            try:
                return Media.from_json(measures)
            except InvalidInput:
                pass
    raise _broken(what)


def _broken(what: str) -> MediaRejected:
    return MediaRejected(f"{what} cannot be decoded.", hint="Save it again.")
