"""The most seconds that a recording can last, from its first bytes: for reserving a quota."""

from __future__ import annotations

import math
import struct

# Longer recordings are refused.
MAX_SECONDS = 600
# Opus, the most compressed of the accepted formats, at its lowest rate.
_LEAST_BYTES_PER_SECOND = 750


def seconds_at_most(data: bytes) -> int:
    """Return the length that a WAV or FLAC header states; else what fits into so many bytes.

    A wrong header only makes the reservation wrong: what is decoded is what is metered.
    """
    stated = _wav(data) or _flac(data)
    most = stated if stated is not None else len(data) / _LEAST_BYTES_PER_SECOND
    return max(1, math.ceil(min(most, MAX_SECONDS)))


def _wav(data: bytes) -> float | None:
    if data[:4] != b"RIFF" or data[8:16] != b"WAVEfmt " or len(data) < 36:
        return None
    channels, rate, _, _, bits = struct.unpack_from("<HIIHH", data, 22)
    per_second = channels * rate * bits / 8
    return len(data) / per_second if per_second else None


def _flac(data: bytes) -> float | None:
    if data[:4] != b"fLaC" or len(data) < 26:
        return None
    packed = int.from_bytes(data[18:26], "big")
    rate, samples = packed >> 44, packed & (2**36 - 1)
    return samples / rate if rate and samples else None
