"""GGUF headers, read with bounds. Pure.

Source of the layout and of the block sizes: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from registry.intake.formats import MAX_TENSORS, Refused, read_exactly

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
# Numbers per block and bytes per block, by tensor type.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip


def check_gguf(path: Path) -> str:
    """Raises Refused unless every key, string and tensor of the header stays within bounds."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if read_exactly(file, 4) != b"GGUF":
            raise Refused("it does not begin as a GGUF file does")
        (version,) = struct.unpack("<I", read_exactly(file, 4))
        if version not in (2, 3):
            raise Refused(f"it is GGUF version {version}; 2 and 3 are accepted")
        tensors, keys = struct.unpack("<QQ", read_exactly(file, 16))
        if not 1 <= tensors <= MAX_TENSORS or keys > MAX_KEYS:
            raise Refused(f"it claims {tensors} tensors and {keys} keys, more than there may be")
        metadata = _read_metadata(file, keys)
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture.isascii():
            raise Refused("it does not name its architecture")
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 8 <= alignment <= 65_536 or alignment % 8:
            raise Refused("its alignment is out of bounds")
        spans = [_read_tensor(file, alignment) for _ in range(tensors)]
        start = -(-file.tell() // alignment) * alignment
    if any(start + end > size for _, end in spans):
        raise Refused("a tensor reaches past the end of the file")
    spans.sort()
    if any(following < end for (_, end), (following, _) in pairwise(spans)):
        raise Refused("its tensors overlap")
    return f"GGUF version {version}, architecture {architecture[:40]}, {tensors} tensors"


def _read_metadata(file: BinaryIO, keys: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(keys):
        key = _read_string(file, MAX_KEY_BYTES)
        if key in found:
            raise Refused(f"it names the key {key[:80]!r} twice")
        (kind,) = struct.unpack("<I", read_exactly(file, 4))
        found[key] = _read_value(file, kind)
    return found


def _read_value(file: BinaryIO, kind: int) -> Any:
    """A scalar or string as it is; an array is read over and stands as its length."""
    if kind in _SCALARS:
        form = _SCALARS[kind]
        return struct.unpack(form, read_exactly(file, struct.calcsize(form)))[0]
    if kind == _STRING:
        return _read_string(file, MAX_STRING_BYTES)
    if kind != _ARRAY:
        raise Refused(f"it holds a value of the unknown type {kind}")
    element, length = struct.unpack("<IQ", read_exactly(file, 12))
    if length > MAX_ARRAY_LENGTH:
        raise Refused(f"it holds an array of {length} values, more than there may be")
    if element in _SCALARS:
        read_exactly(file, struct.calcsize(_SCALARS[element]) * length)
    elif element == _STRING:
        for _ in range(length):
            _read_string(file, MAX_STRING_BYTES)
    else:
        raise Refused("it holds an array of something other than numbers and text")
    return length


def _read_string(file: BinaryIO, limit: int) -> str:
    (length,) = struct.unpack("<Q", read_exactly(file, 8))
    if length > limit:
        raise Refused(f"it holds text of {length} bytes; {limit} are allowed")
    # Tokens may be arbitrary bytes; what is compared or shown is ASCII.
    return read_exactly(file, length).decode("utf-8", "replace")


def _read_tensor(file: BinaryIO, alignment: int) -> tuple[int, int]:
    """Where a tensor's bytes begin and end, from the start of the data."""
    name = _read_string(file, MAX_NAME_BYTES)
    (dimensions,) = struct.unpack("<I", read_exactly(file, 4))
    if not 1 <= dimensions <= 4:
        raise Refused(f"tensor {name[:80]!r} has {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", read_exactly(file, 8 * dimensions))
    kind, offset = struct.unpack("<IQ", read_exactly(file, 12))
    if kind not in _BLOCKS:
        raise Refused(f"tensor {name[:80]!r} has the type {kind}, which cannot be converted")
    block, width = _BLOCKS[kind]
    count = math.prod(shape)
    if count % block or count > 2**48 or offset % alignment or offset > 2**63:
        raise Refused(f"tensor {name[:80]!r} has a malformed shape or offset")
    return offset, offset + count // block * width
