"""SHA-256 of files that arrive in parts, continued from one request to the next.

A process remembers its hash of the file that an attempt is sending. Bytes that another process
received are read again, in bounded steps.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from uuid import UUID

from registry.manifests import CHUNK_BYTES
from workers.control.jobs import Claim

# Bytes that one request reads again: about a second of hashing.
STEP_BYTES = 512 * 1024**2
# Number of attempts whose hash is remembered; each takes a few hundred bytes.
_REMEMBERED = 256


class Hashing:
    """Hash of the first `position` bytes of one file."""

    def __init__(self, name: tuple[str, str]) -> None:
        self.name = name
        self.position = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The SHA-256 of these bytes, in hexadecimal digits."""
        return self._digest.hexdigest()

    def add(self, data: bytes) -> None:
        """Hash the next bytes."""
        self._digest.update(data)
        self.position += len(data)

    def catch_up(self, file: int, size: int) -> None:
        """Read on from an open file to byte `size`, at most `STEP_BYTES`. Raises OSError."""
        until = min(size, self.position + STEP_BYTES)
        while self.position < until:
            data = os.pread(file, min(CHUNK_BYTES, until - self.position), self.position)
            if not data:
                raise OSError("The file has become shorter")
            self.add(data)


_hashings: OrderedDict[tuple[UUID, int], Hashing] = OrderedDict()
_lock = threading.Lock()


def hashing_take(claim: Claim, generation: str, name: str) -> Hashing:
    """Take the remembered hash of a file of the attempt, or start a new one.

    The remembered one is removed, so that a request that fails leaves none.
    """
    with _lock:
        remembered = _hashings.pop((claim.job_id, claim.fence), None)
    key = (generation, name)
    return remembered if remembered is not None and remembered.name == key else Hashing(key)


def hashing_keep(claim: Claim, hashing: Hashing) -> None:
    """Remember the hash for the attempt's next request."""
    with _lock:
        _hashings[claim.job_id, claim.fence] = hashing
        while len(_hashings) > _REMEMBERED:
            _hashings.popitem(last=False)
