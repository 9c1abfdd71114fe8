"""Artifact of an index: vectors as safetensors, and a table of their chunks.

`vectors.safetensors` has one tensor `vectors`, float32 [chunks, dimensions]; each vector has length
1. `chunks.json` has `documents`: [{version, text_sha256, spans: [[start, end], …]}], with chunks in
the order of the vectors, and `window`, the embedding model's maximum number of tokens, which bounds
every chunk. The texts themselves are in the store, once each, under their SHA-256. Loads numpy, but
no torch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from registry.knowledge.chunks import MAX_CHUNKS
from registry.manifests import ManifestMismatch

VECTORS, CHUNKS = "vectors.safetensors", "chunks.json"
MAX_DIMENSIONS = 8_192
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """One document version in an index: its chunks as (start, end) in characters of its text."""

    version: int
    text_sha256: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class LoadedIndex:
    """A verified index in memory. `rows` has the position of each vector's document in `documents`.
    `window` is 0 if chunks may exceed the model's maximum length."""

    digest: str
    vectors: Vectors
    documents: tuple[IndexedDocument, ...]
    rows: npt.NDArray[np.int32]
    spans: npt.NDArray[np.int32]
    window: int = 0

    @property
    def size_bytes(self) -> int:
        return int(self.vectors.nbytes + self.rows.nbytes + self.spans.nbytes)


def write_index(
    folder: Path, vectors: Vectors, documents: Sequence[IndexedDocument], window: int
) -> None:
    """Write the two files; the same input gives the same bytes."""
    header = json.dumps(
        {
            "vectors": {
                "dtype": "F32",
                "shape": list(vectors.shape),
                "data_offsets": [0, int(vectors.nbytes)],
            }
        },
        separators=(",", ":"),
    ).encode()
    header += b" " * (-len(header) % 8)
    with (folder / VECTORS).open("wb") as output:
        output.write(struct.pack("<Q", len(header)) + header)
        output.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
    table = [
        {"version": each.version, "text_sha256": each.text_sha256, "spans": each.spans}
        for each in documents
    ]
    (folder / CHUNKS).write_text(
        json.dumps({"documents": table, "window": window}, separators=(",", ":")),
        encoding="utf-8",
    )


def parse_index(digest: str, folder: Path) -> LoadedIndex:
    """Read an index from a folder whose bytes were verified.

    Raises:
        ManifestMismatch: the files are not an index.
        OSError: a file is missing.
    """
    return index_parsed(digest, (folder / VECTORS).read_bytes(), (folder / CHUNKS).read_bytes())


def index_parsed(digest: str, vectors: bytes, chunks: bytes) -> LoadedIndex:
    """Return the index in these verified bytes. Raises ManifestMismatch for any other content."""
    try:
        return _parsed(digest, vectors, chunks)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise ManifestMismatch(f"The index cannot be read: {error}.", path=CHUNKS) from error


def _parsed(digest: str, vectors: bytes, chunks: bytes) -> LoadedIndex:
    (length,) = struct.unpack_from("<Q", vectors)
    tensor = json.loads(vectors[8 : 8 + length])["vectors"]
    rows, dimensions = tensor["shape"]
    if tensor["dtype"] != "F32" or not (
        0 <= rows <= MAX_CHUNKS and 0 < dimensions <= MAX_DIMENSIONS
    ):
        raise ValueError("its vectors have the wrong type or shape")
    matrix = np.frombuffer(vectors, dtype="<f4", offset=8 + length).reshape(rows, dimensions)
    table = json.loads(chunks)
    documents = tuple(
        IndexedDocument(
            int(each["version"]), str(each["text_sha256"]), tuple((a, b) for a, b in each["spans"])
        )
        for each in table["documents"]
    )
    counts = [len(each.spans) for each in documents]
    if sum(counts) != rows:
        raise ValueError("its numbers of chunks and vectors differ")
    spans = np.array([span for each in documents for span in each.spans], dtype=np.int32)
    owners = np.repeat(np.arange(len(documents), dtype=np.int32), counts)
    window = int(table.get("window", 0))
    return LoadedIndex(digest, matrix, documents, owners, spans.reshape(rows, 2), window)
