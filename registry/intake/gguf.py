"""Bounded reading of GGUF headers. Pure.

Source of the layout and of the block sizes:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from registry.intake.formats import MAX_TENSORS, RejectedFile, read_exactly

# The largest tokenizers take about 20 MB of the header.
MAX_HEADER_BYTES = 64 * 1024 * 1024
MAX_KEYS = 10_000
MAX_KEY_BYTES = 65_535
MAX_STRING_BYTES = 4 * 1024 * 1024
MAX_ARRAY_LENGTH = 4_000_000
MAX_NAME_BYTES = 256
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_READ = ("general.architecture", "general.alignment")
# Numbers per block and bytes per block, by tensor type.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip


def check_gguf(path: Path) -> str:
    """Raise RejectedFile unless every key, string and tensor of the header is within bounds."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = _Header(file, size)
        if header.read(4) != b"GGUF":
            raise RejectedFile("it does not begin like a GGUF file")
        version = header.number("<I")
        if version not in (2, 3):
            raise RejectedFile(f"it is GGUF version {version}; 2 and 3 are accepted")
        tensors, keys = header.number("<Q"), header.number("<Q")
        if not 1 <= tensors <= MAX_TENSORS or keys > MAX_KEYS:
            raise RejectedFile(
                f"it claims {tensors} tensors and {keys} keys, more than are allowed"
            )
        metadata = _read_metadata(header, keys)
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture.isascii():
            raise RejectedFile("it does not name its architecture")
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 8 <= alignment <= 65_536 or alignment % 8:
            raise RejectedFile("its alignment is out of bounds")
        spans = [_read_tensor(header, alignment) for _ in range(tensors)]
        start = -(-header.position // alignment) * alignment
    if any(start + end > size for _, end in spans):
        raise RejectedFile("a tensor reaches past the end of the file")
    spans.sort()
    if any(following < end for (_, end), (following, _) in pairwise(spans)):
        raise RejectedFile("its tensors overlap")
    return f"GGUF version {version}, architecture {architecture[:40]}, {tensors} tensors"


class _Header:
    """Sequential reader of a header of at most `MAX_HEADER_BYTES`."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._end = min(size, MAX_HEADER_BYTES)
        self._whole = size <= MAX_HEADER_BYTES

    @property
    def position(self) -> int:
        return self._file.tell()

    def read(self, count: int) -> bytes:
        self._check(count)
        return read_exactly(self._file, count)

    def skip(self, count: int) -> None:
        self._check(count)
        self._file.seek(count, os.SEEK_CUR)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def text_length(self, limit: int) -> int:
        length = self.number("<Q")
        if length > limit:
            raise RejectedFile(f"it holds text of {length} bytes; {limit} are allowed")
        return int(length)

    def text(self, limit: int) -> str:
        # Tokens may be arbitrary bytes; all compared or shown texts are ASCII.
        return self.read(self.text_length(limit)).decode("utf-8", "replace")

    def _check(self, count: int) -> None:
        if self._file.tell() + count > self._end:
            if self._whole:
                raise RejectedFile("it ends in the middle of its header")
            raise RejectedFile(f"its header has more than {MAX_HEADER_BYTES // 2**20} MiB")


def _read_metadata(header: _Header, keys: int) -> dict[str, Any]:
    """Return the values of the keys in `_READ`, and skip all others."""
    keys_read: set[str] = set()
    values: dict[str, Any] = {}
    for _ in range(keys):
        key = header.text(MAX_KEY_BYTES)
        if key in keys_read:
            raise RejectedFile(f"it names the key {key[:80]!r} twice")
        keys_read.add(key)
        kind = header.number("<I")
        if key in _READ and kind in _SCALARS:
            values[key] = header.number(_SCALARS[kind])
        elif key in _READ and kind == _STRING:
            values[key] = header.text(MAX_NAME_BYTES)
        else:
            _skip_value(header, kind)
    return values


def _skip_value(header: _Header, kind: int) -> None:
    if kind in _SCALARS:
        header.skip(struct.calcsize(_SCALARS[kind]))
    elif kind == _STRING:
        header.skip(header.text_length(MAX_STRING_BYTES))
    elif kind == _ARRAY:
        element, length = header.number("<I"), header.number("<Q")
        if length > MAX_ARRAY_LENGTH:
            raise RejectedFile(f"it holds an array of {length} values, more than are allowed")
        if element in _SCALARS:
            header.skip(struct.calcsize(_SCALARS[element]) * length)
        elif element == _STRING:
            for _ in range(length):
                header.skip(header.text_length(MAX_STRING_BYTES))
        else:
            raise RejectedFile("it holds an array of something other than numbers and text")
    else:
        raise RejectedFile(f"it holds a value of the unknown type {kind}")


def _read_tensor(header: _Header, alignment: int) -> tuple[int, int]:
    """Return the first and last byte of a tensor, from the start of the data."""
    name = header.text(MAX_NAME_BYTES)
    dimensions = header.number("<I")
    if not 1 <= dimensions <= 4:
        raise RejectedFile(f"tensor {name[:80]!r} has {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", header.read(8 * dimensions))
    kind, offset = header.number("<I"), header.number("<Q")
    if kind not in _BLOCKS:
        raise RejectedFile(f"tensor {name[:80]!r} has the type {kind}, which cannot be converted")
    block, width = _BLOCKS[kind]
    count = math.prod(shape)
    if count % block or count > 2**48 or offset % alignment or offset > 2**63:
        raise RejectedFile(f"tensor {name[:80]!r} has a malformed shape or offset")
    return offset, offset + count // block * width
