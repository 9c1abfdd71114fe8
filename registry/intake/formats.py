"""Bounded detection of a delivered file's real format, without loading it.

Pure. Each reader raises `RejectedFile` with a sentence for people, and never trusts a length or an
offset in the file. Formats: https://github.com/huggingface/safetensors#format and
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from governance.errors import InvalidInput
from governance.strict_json import unique_object
from registry.manifests import check_path

# 100,000 tensors take about 15 MB, and about ten times as much memory when parsed.
MAX_SAFETENSORS_HEADER = 32 * 1024 * 1024
MAX_JSON_BYTES = 64 * 1024 * 1024
# Values are counted by brackets and commas: the largest tokenizers have 3 million. A value takes up
# to 64 bytes of memory, even if it takes only a few bytes of the file.
MAX_JSON_VALUES = 8_000_000
MAX_TEXT_BYTES = 64 * 1024 * 1024
TEXT_CHARACTERS = 1024 * 1024  # read at once
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 8
SAFETENSORS_DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
    "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
# Keys that a config must not contain, because they make a loader import code from the delivery.
FORBIDDEN_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")


# Bytes at each end of a zip archive that are searched for the name of a pickle.
ZIP_END_BYTES = 64 * 1024


class RejectedFile(Exception):
    """The file is rejected; the message gives the reason."""


def is_pickle(path: Path) -> bool:
    """Return whether the content is a Python pickle, either bare or in a zip, as PyTorch writes it.

    Only the two ends of a zip are searched, because its list of contents can have any length.
    """
    with path.open("rb") as file:
        head = file.read(ZIP_END_BYTES)
        file.seek(-min(ZIP_END_BYTES, path.stat().st_size), os.SEEK_END)
        tail = file.read(ZIP_END_BYTES)
    if len(head) >= 2 and head[0] == 0x80 and 1 <= head[1] <= 5:
        return True
    names = (b".pkl", b".pickle")
    return head[:2] == b"PK" and any(name in end for name in names for end in (head, tail))


def container_kind(path: Path) -> str:
    """Return the kind of content that is never accepted, such as an archive or program; else ""."""
    with path.open("rb") as file:
        head = file.read(8)
    for magic, word in (
        (b"PK", "a zip archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"7z\xbc\xaf", "a 7z archive"),
        (b"\x7fELF", "a program"),
        (b"MZ", "a program"),
        (b"#!", "a script"),
        (b"\x89HDF\r\n", "an HDF5 file"),
    ):
        if head.startswith(magic):
            return word
    return ""


def _parse_json(text: bytes) -> Any:
    if sum(text.count(mark) for mark in (b"[", b"{", b",")) > MAX_JSON_VALUES:
        raise RejectedFile(f"its JSON holds more than {MAX_JSON_VALUES:,} values")
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=unique_object)
    except (ValueError, RecursionError) as error:
        raise RejectedFile(f"its JSON cannot be read: {str(error)[:200]}") from error


def check_json(path: Path) -> str:
    """Raise RejectedFile for JSON that is too large, malformed, or makes a loader import code or
    read files from elsewhere."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise RejectedFile(f"it is larger than {MAX_JSON_BYTES // 2**20} MiB")
    pending = [_parse_json(path.read_bytes())]
    if isinstance(pending[0], dict):
        _check_named_files(path.parent, pending[0])
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            for key in FORBIDDEN_KEYS:
                # A whole number is a token's ID in a vocabulary, not a setting.
                if key in value and type(value[key]) is not int:
                    raise RejectedFile(
                        f'it sets "{key}", which makes a loader run code that comes with the model'
                    )
            pending.extend(value.values())
    return "JSON without code references"


def _check_named_files(folder: Path, content: dict[str, Any]) -> None:
    """Reject names that make a loader read files outside of `folder`, which are not hashed.

    Loaders append names in an index's `weight_map` and a tokenizer's `fast_tokenizer_files` to the
    folder's path unchecked, so that an absolute name, or one with `..`, leads to other bytes.
    """
    for key in ("weight_map", "fast_tokenizer_files"):
        value = content.get(key)
        if value is None or type(value) is int:
            continue  # A whole number is a token's ID.
        names = value.values() if isinstance(value, dict) else value
        if not isinstance(value, (dict, list)) or not all(isinstance(name, str) for name in names):
            raise RejectedFile(f'its "{key}" is malformed')
        for name in sorted(set(names)):
            try:
                check_path(name)
            except InvalidInput as error:
                raise RejectedFile(f'its "{key}" names an unsafe file: {error.message}') from error
            if not (folder / name).is_file():
                raise RejectedFile(f'its "{key}" names {name[:80]}, which was not delivered')


def check_text(path: Path) -> str:
    """Raise RejectedFile for text that is too large, is not UTF-8, or contains NUL."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise RejectedFile(f"it is larger than {MAX_TEXT_BYTES // 2**20} MiB")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            while text := file.read(TEXT_CHARACTERS):
                if "\0" in text:
                    raise RejectedFile("it holds a NUL character and is not text")
    except UnicodeDecodeError as error:
        raise RejectedFile(f"it is not UTF-8 text: {error.reason}") from error
    return "UTF-8 text"


def check_sentencepiece(path: Path) -> str:
    """Raise RejectedFile unless the fields of a SentencePiece model, a protobuf message of pieces,
    settings and tests, fill the file. Only other programs would read anything after them."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise RejectedFile(f"it is larger than {MAX_TEXT_BYTES // 2**20} MiB")
    data, at, pieces = path.read_bytes(), 0, 0
    while at < len(data):
        # Fields 1 to 5: each is a message, preceded by its length.
        if data[at] not in (0x0A, 0x12, 0x1A, 0x22, 0x2A):
            raise RejectedFile("it is not a SentencePiece model")
        pieces += data[at] == 0x0A
        length, at = _varint(data, at + 1)
        at += length
    if at != len(data) or not pieces:
        raise RejectedFile("it is not a SentencePiece model, or is cut off")
    return "SentencePiece model"


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a length of at most four bytes, and the position after it."""
    value = 0
    for place in range(4):
        if at + place >= len(data):
            break
        value |= (data[at + place] & 0x7F) << 7 * place
        if data[at + place] < 0x80:
            return value, at + place + 1
    raise RejectedFile("it is not a SentencePiece model, or is cut off")


def check_safetensors(path: Path) -> str:
    """Raise RejectedFile unless the header is valid and describes exactly the file's bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise RejectedFile("it is too short for a safetensors file")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_SAFETENSORS_HEADER or length > size - 8:
            raise RejectedFile(f"its header claims {length} bytes, more than are allowed")
        text = file.read(length)
    if not text.startswith(b"{"):
        raise RejectedFile("its header does not begin with a JSON object")
    header = _parse_json(text)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise RejectedFile("its __metadata__ is not an object of texts")
    if not 1 <= len(header) <= MAX_TENSORS:
        raise RejectedFile(f"it names {len(header)} tensors; 1 to {MAX_TENSORS} are allowed")
    spans = sorted(_tensor_span(name, entry) for name, entry in header.items())
    position = 0
    for begin, end in spans:
        if begin != position:
            raise RejectedFile(f"its tensors overlap or leave a gap at byte {position}")
        position = end
    if position != size - 8 - length:
        raise RejectedFile(f"its tensors end at byte {position} of {size - 8 - length}")
    return f"safetensors, {len(header)} tensors"


def _tensor_span(name: str, entry: Any) -> tuple[int, int]:
    """Return the first and last byte of a tensor, checked against its dtype and shape."""
    label = repr(name[:80])
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise RejectedFile(f"its entry for tensor {label} is malformed")
    width = SAFETENSORS_DTYPE_BYTES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if width is None:
        raise RejectedFile(f"tensor {label} has the unknown dtype {str(entry['dtype'])[:40]!r}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise RejectedFile(f"tensor {label} has a malformed shape")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise RejectedFile(f"tensor {label} has malformed offsets")
    if math.prod(shape) * width != offsets[1] - offsets[0]:
        raise RejectedFile(f"tensor {label} does not fill the bytes that it claims")
    return offsets[0], offsets[1]


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def read_exactly(file: BinaryIO, count: int) -> bytes:
    """Return `count` bytes. Raises RejectedFile if the file ends before."""
    data = file.read(count)
    if len(data) != count:
        raise RejectedFile("it ends in the middle of its header")
    return data
