"""SHA-256 of files that arrive in parts, continued from one request to the next.

A process remembers how far it has hashed the file that an attempt is sending. What it does not
remember, because another process took the parts, is read again in bounded steps.
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
# Attempts whose file is remembered; each is a few hundred bytes.
_REMEMBERED = 256


class Hashing:
    """The hash of the first `position` bytes of one file."""

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
    """Return the hash of a file of the attempt so far; a new one when none is remembered.

    It is removed here, so that a request that fails leaves none.
    """
    with _lock:
        found = _hashings.pop((claim.job_id, claim.fence), None)
    wanted = (generation, name)
    return found if found is not None and found.name == wanted else Hashing(wanted)


def hashing_keep(claim: Claim, hashing: Hashing) -> None:
    """Remember it for the attempt's next request."""
    with _lock:
        _hashings[claim.job_id, claim.fence] = hashing
        while len(_hashings) > _REMEMBERED:
            _hashings.popitem(last=False)
