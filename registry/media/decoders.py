"""Decode requests' files in processes that were started in advance.

The calling process loads no decoder. A decoding process works for only one key, on several files in
turn, and ends soon after the last one, because starting a process takes longer than decoding most
files. Each video has a separate process. Images and recordings do not share places with videos, so
that a slow video never delays them. Neither one key nor one department can take all places.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from governance.errors import InvalidInput, Unavailable
from registry.media.checks import CONTAINERS, Kind, Media, check_head
from registry.media.errors import MediaBusy, MediaRejected
from registry.media.limits import MediaLimits
from registry.sandbox import landlock
from registry.sandbox.places import FairPlaces
from registry.sandbox.readers import ENVIRONMENT, Reach, reader_command
from registry.sandbox.source import MEBIBYTE, BoundedProcess, ProcessEnded, ProcessSource, TimedOut

_MODULE = "registry.media.decoder_process"
# Two more than processors: one key always leaves a place for others of its department, and one
# department always leaves a place for other departments. Each may take 1.1 GiB.
AT_ONCE = max(2, min(4, os.cpu_count() or 1)) + 2
VIDEOS_AT_ONCE = 3
WAIT_S = 10.0
# The kernel limits a process's CPU time (`decoder_process.py`); this wall-clock limit ends it on a
# machine that is too busy.
SECONDS = 45.0
MAX_REQUEST_BYTES = 64 * 1024
# A process ends after this many files, after a slow file, or after idle time, in seconds.
FILES_EACH = 64
SLOW_S = 1.0
IDLE_S = 5.0
_READY = 2
# Memory that a process keeps for its next file; a new allocation costs a third of decoding.
_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(64 * MEBIBYTE),
    "MALLOC_MMAP_THRESHOLD_": str(32 * MEBIBYTE),
}


@dataclass(slots=True)
class _Decoder:
    """A process, the number of files that it has decoded, and the time of its last use."""

    process: BoundedProcess
    files: int = 0
    used_at: float = 0.0


class Decoders:
    """Pool of decoding processes. Any number of threads may use it."""

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._source: ProcessSource | None = None
        # Processes that have not decoded yet, processes that wait for files of one key, and
        # processes to end.
        self._ready: list[BoundedProcess] = []
        self._idle: dict[str, list[_Decoder]] = {}
        self._over: list[BoundedProcess] = []
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
        """Number of threads that can use the pool at once without waiting for each other."""
        return AT_ONCE + VIDEOS_AT_ONCE

    @property
    def short(self) -> bool:
        """Return whether `prepare` has work to do."""
        return len(self._ready) < _READY or bool(self._over)

    @property
    def idle(self) -> bool:
        """Return whether processes wait for files of one key."""
        return bool(self._idle)

    @asynccontextmanager
    async def place(self, kind: Kind, owner: str, group: str) -> AsyncIterator[None]:
        """Hold a place to decode a file, for a key of the department `group`, or for a person.

        Raises:
            QuotaExceeded: too many files of this owner or group wait.
            Unavailable: too many files are being decoded.
        """
        places = self._video_places if kind == "video" else self._places
        async with places.place_async(owner, group):
            yield

    def prepare(self) -> None:
        """End unused processes, and start others for the next files. If a process cannot be
        started, `measure` reports it."""
        oldest = time.monotonic() - IDLE_S
        with self._lock:
            for owner, decoders in list(self._idle.items()):
                self._over += [each.process for each in decoders if each.used_at <= oldest]
                self._keep(owner, [each for each in decoders if each.used_at > oldest])
            over, self._over = self._over, []
        for process in over:
            process.close()
        with suppress(ProcessEnded):
            while len(self._ready) < _READY:
                process = self._fork()
                with self._lock:
                    self._ready.append(process)
                if self._closed:
                    self.close()

    def measure(self, data: bytes, *, kind: Kind | None, what: str, owner: str = "") -> Media:
        """Decode a file to its end and return its measures, without a SHA-256. `what` names it in
        messages; `owner` is the key or person that sent it.

        Raises:
            MediaRejected: the file is of another kind, out of bounds or broken, or its decoding
                process crashed.
            Unavailable: a process could not be started, or the machine is too busy.
        """
        content_type, kind = check_head(data[:64], len(data), self._limits, kind=kind, what=what)
        file = os.memfd_create("assay-media", os.MFD_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            request = {"kind": kind, "what": what[:1000]}
            answer = self._answer(file, request, owner if content_type not in CONTAINERS else None)
        finally:
            os.close(file)
        media = _media(answer, len(data), what)
        if (media.content_type, media.kind) != (content_type, kind):
            raise _broken(what)
        return media

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle = [each.process for some in self._idle.values() for each in some]
            processes = [*self._ready, *idle, *self._over]
            self._ready, self._idle, self._over = [], {}, []
            source = self._source
        for process in processes:
            process.close()
        if source is not None:
            source.close()

    def _answer(self, file: int, request: dict[str, str], owner: str | None) -> Any:
        """Return the answer of a process for `owner`; for None, of a process for this file only."""
        what = request["what"]
        try:
            decoder = self._acquire(owner)
        except ProcessEnded as error:
            raise Unavailable("No process can decode the file now.", retry_after=5) from error
        started_at = time.monotonic()
        again = False
        try:
            answer = json.loads(decoder.process.ask(request, file))
            again = owner is not None and time.monotonic() - started_at < SLOW_S
            return answer
        except TimedOut as error:
            raise MediaBusy(
                f"{what} could not be decoded within {SECONDS:g} s: the machine is busy.",
                retry_after=5,
            ) from error
        except ProcessEnded as error:
            raise MediaRejected(
                f"{what} broke the process that decodes it, or took more time or memory than a "
                "file of its size may.",
                hint="Save it again; send it with fewer pixels or frames, or in parts.",
            ) from error
        except ValueError as error:
            raise _broken(what) from error
        finally:
            self._give_back(decoder, owner or "", again=again)

    def _acquire(self, owner: str | None) -> _Decoder:
        with self._lock:
            if owner is not None and (idle := self._idle.get(owner)):
                decoder = idle.pop()
                self._keep(owner, idle)
                return decoder
            process = self._ready.pop() if self._ready else None
        return _Decoder(process or self._fork())

    def _give_back(self, decoder: _Decoder, owner: str, *, again: bool) -> None:
        """Keep a process for the next file of its owner, or leave ending it to `prepare`, so that
        answers do not wait for its end."""
        decoder.files += 1
        decoder.used_at = time.monotonic()
        with self._lock:
            again = again and decoder.files < FILES_EACH and not self._closed
            if again:
                self._idle.setdefault(owner, []).append(decoder)
                if sum(map(len, self._idle.values())) <= AT_ONCE:
                    return
                owner = min(self._idle, key=lambda each: self._idle[each][0].used_at)
                decoder = self._idle[owner].pop(0)
                self._keep(owner, self._idle[owner])
            wait = self._closed or len(self._over) >= self.threads
            if not wait:
                self._over.append(decoder.process)
        if wait:
            decoder.process.close()

    def _keep(self, owner: str, decoders: list[_Decoder]) -> None:
        if decoders:
            self._idle[owner] = decoders
        else:
            self._idle.pop(owner, None)

    def _fork(self) -> BoundedProcess:
        with self._lock:
            if self._closed:
                raise ProcessEnded("it was closed")
            if self._source is None:
                self._source = _source(self._limits)
            source = self._source
        return source.process()


def _source(limits: MediaLimits) -> ProcessSource:
    confined = landlock.abi() >= landlock.LEAST_ABI
    return ProcessSource(
        reader_command(_MODULE, Reach(), forks=True),
        {"limits": asdict(limits), "confined": confined},
        environment={**ENVIRONMENT, **_MEMORY},
        seconds=SECONDS,
        max_input=MAX_REQUEST_BYTES,
    )


def _media(answer: Any, size: int, what: str) -> Media:
    """Return the measures in a process's answer, which is not trusted. Raises MediaRejected."""
    match answer:
        case {"refused": str(message), "hint": str(hint)}:
            raise MediaRejected(message[:2000], hint=hint[:500])
        case {"media": dict(measures)}:
            measures |= {"sha256": "0" * 64, "size_bytes": size}
            with suppress(InvalidInput):
                return replace(Media.from_json(measures), sha256="")
    raise _broken(what)


def _broken(what: str) -> MediaRejected:
    return MediaRejected(f"{what} cannot be decoded.", hint="Save it again.")
