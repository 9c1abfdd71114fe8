"""Indexes of knowledge bases in the store, and the search in a loaded index."""

from __future__ import annotations

import numpy as np

from registry.knowledge.index_format import (
    CHUNKS,
    VECTORS,
    LoadedIndex,
    Vectors,
    index_parsed,
)
from registry.manifests import Manifest, ManifestMismatch
from registry.storage import store


def read_index(manifest: Manifest) -> LoadedIndex:
    """Return the index of `manifest` from the store, parsed from the same bytes that were hashed.

    Raises:
        ManifestMismatch: the stored bytes were changed, or are not an index.
        FilesUnreadable: a file is missing.
        StoreUnavailable: the store does not answer.
    """
    files = {file.path: file for file in manifest.files}
    if set(files) != {VECTORS, CHUNKS}:
        raise ManifestMismatch("The artifact is not an index of a knowledge base.", path=VECTORS)
    contents = {name: store.version_file(manifest, name) for name in files}
    return index_parsed(manifest.digest, contents[VECTORS], contents[CHUNKS])


def best_rows(
    index: LoadedIndex, query: Vectors, allowed: frozenset[int], most: int
) -> list[tuple[int, float]]:
    """Return up to `most` (row, cosine) of chunks, best first, of document versions in `allowed`.

    `query` is a vector of length 1. The search is exact: it compares every vector.

    Raises:
        ValueError: the query has a different number of dimensions.
    """
    usable = np.array([each.version in allowed for each in index.documents], dtype=bool)
    if not usable.any():
        return []
    if query.shape != (index.vectors.shape[1],):
        raise ValueError(f"the query has {query.shape} numbers, the index {index.vectors.shape[1]}")
    scores = index.vectors @ query
    scores[~usable[index.rows]] = -np.inf
    count = min(most, len(scores))
    top = np.argpartition(-scores, count - 1)[:count]
    top = top[np.lexsort((top, -scores[top]))]
    return [(int(row), float(scores[row])) for row in top if np.isfinite(scores[row])]
