"""Build the index of a knowledge base: chunks of the documents in force, and a vector for each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from registry.knowledge.chunks import chunk_spans, fitted_spans
from registry.knowledge.index_format import (
    IndexedDocument,
    Vectors,
    parse_index,
    write_index,
)
from registry.manifests import ManifestMismatch, build_manifest
from workers.run.attempt import Attempt
from workers.run.order import IndexWork
from workers.trainers.embedding import TextWindow, embed
from workers.trainers.protocol import BadMaterial, Canceled


def build_index(attempt: Attempt, work: IndexWork) -> dict[str, Any]:
    """Write the index to the attempt's output folder; `index_register` takes the result.

    Reuses the vectors of chunks whose text is in the current index, if the same embedding version
    made it.

    Raises:
        BadMaterial: too many chunks, or a text is missing.
        Canceled: the attempt's progress requested the end.
    """
    progress = attempt.progress
    progress.enter("reading")
    model = attempt.served(work.embedding, "embedding")
    with TextWindow(model.folder) as window:
        by_digest = _present_vectors(attempt, window.limit)
        documents, texts = _cut(attempt, work, window, by_digest)
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    pairs = dict(zip(digests, texts, strict=True))
    missing = {digest: text for digest, text in pairs.items() if digest not in by_digest}
    reused = sum(digest in by_digest for digest in digests)
    progress.log(f"{len(texts):,} chunks of {len(documents):,} documents; {reused:,} unchanged.")
    if missing:
        progress.enter("embedding")
        attempt.set_threads()
        vectors = embed(model, list(missing.values()), progress)
        by_digest |= dict(zip(missing, vectors, strict=True))
    matrix = (
        np.stack([by_digest[digest] for digest in digests])
        if digests
        else np.zeros((0, 1), dtype=np.float32)
    )
    progress.enter("writing")
    output = attempt.make_output()
    write_index(output, matrix, documents, window.limit)
    return {
        "manifest": build_manifest(output).to_json(),
        "dimensions": int(matrix.shape[1]),
        "chunks": len(texts),
        "reused": reused,
        "versions": [each.version for each in documents],
        "revision": work.revision,
    }


def _cut(
    attempt: Attempt, work: IndexWork, window: TextWindow, by_digest: Mapping[bytes, Vectors]
) -> tuple[list[IndexedDocument], list[str]]:
    """Return the documents in chunks that fit the model's limit, and the chunks' texts."""
    documents, texts = [], []
    split = 0

    def fits(pieces: list[str]) -> list[bool]:
        # Chunks that already have a vector were measured before they got it.
        new = [each for each in pieces if hashlib.sha256(each.encode()).digest() not in by_digest]
        long = {
            each
            for each, length in zip(new, window.lengths(new), strict=True)
            if length > window.limit
        }
        return [each not in long for each in pieces]

    for document in work.documents:
        text = attempt.text(document.text_sha256)
        if text is None:
            raise BadMaterial(f"The text of document version {document.version} is missing.")
        if attempt.progress.should_stop():
            raise Canceled
        spans = chunk_spans(text, work.chunk_characters, work.overlap_characters)
        try:
            fitted = fitted_spans(text, spans, work.overlap_characters, fits)
        except ValueError as error:
            raise BadMaterial(f"Document version {document.version}: {error}.") from error
        split += len(fitted) - len(spans)
        documents.append(IndexedDocument(document.version, document.text_sha256, tuple(fitted)))
        texts += [text[start:end] for start, end in fitted]
        if len(texts) > work.max_chunks:
            raise BadMaterial(
                f"{work.name} has more than {work.max_chunks:,} chunks, the most that an index "
                "holds. Remove documents, or create a second knowledge base."
            )
    if split:
        attempt.progress.log(
            f"{split:,} more chunks than by characters: the model reads {window.limit:,} tokens."
        )
    return documents, texts


def _present_vectors(attempt: Attempt, limit: int) -> dict[bytes, Vectors]:
    """Return the current index's vectors by the SHA-256 of their chunk; none if the index cannot be
    read, or was made for a larger limit of tokens."""
    present = attempt.order.named("index")
    if present is None or not attempt.has("index"):
        return {}
    try:
        loaded = parse_index(present.files.digest, attempt.input("index"))
    except ManifestMismatch as error:
        attempt.progress.warn(
            f"The current index cannot be used: {error.message} All chunks are embedded again."
        )
        return {}
    if not 0 < loaded.window <= limit:
        return {}
    vectors: dict[bytes, Vectors] = {}
    row = 0
    for document in loaded.documents:
        rows = loaded.vectors[row : row + len(document.spans)]
        row += len(document.spans)
        text = attempt.text(document.text_sha256)
        if text is None:
            # This version is probably no longer in force; if it is, `_cut` raises.
            attempt.progress.warn(
                f"A text of document version {document.version} is not in the store."
            )
            continue
        for (start, end), vector in zip(document.spans, rows, strict=True):
            vectors[hashlib.sha256(text[start:end].encode()).digest()] = vector
    return vectors
