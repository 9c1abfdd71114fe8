"""Build the index of a knowledge base: chunks of the documents in force, and a vector for each."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from governance.errors import Unavailable
from registry.catalog import get_task
from registry.knowledge.chunks import MAX_CHUNKS, chunk_spans
from registry.knowledge.index_files import (
    IndexedDocument,
    Vectors,
    read_index,
    write_index,
)
from registry.knowledge.models import KnowledgeBase
from registry.knowledge.selectors import current_versions, stored_text
from registry.manifests import FilesUnreadable, Manifest, ManifestMismatch, build_manifest
from registry.versions.models import ModelVersion, VersionState
from workers.jobs.leases import Claim
from workers.tasks.execution import output_of, set_threads, version_copy
from workers.tasks.progress import LeasedProgress
from workers.trainers.embedding import embed
from workers.trainers.protocol import BadMaterial, Judge


def build_index(claim: Claim, progress: LeasedProgress) -> dict[str, Any]:
    """Write the index to the attempt's output folder; the result is what `index_register` takes.

    Vectors of chunks whose text stands in the index before it, made by the same embedding version,
    are taken over.

    Raises:
        BadMaterial: too many chunks, or the embedding version cannot be used.
        Cancelled: `progress` said so.
        Unavailable: the store lacks a text.
    """
    base = KnowledgeBase.objects.select_related("index", "embedding_version__model").get(
        pk=claim.spec["base"]
    )
    # Read with the base, before its documents: those are at least as new.
    revision = base.revision
    progress.enter("reading")
    documents, texts = _cut(base)
    known = _known_vectors(base, progress)
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    pairs = dict(zip(digests, texts, strict=True))
    missing = {digest: text for digest, text in pairs.items() if digest not in known}
    reused = sum(digest in known for digest in digests)
    progress.log(f"{len(texts):,} chunks of {len(documents):,} documents; {reused:,} unchanged.")
    if missing:
        progress.enter("embedding")
        model = _embedder(claim, base.embedding_version)
        set_threads()
        vectors = embed(model, list(missing.values()), progress)
        known |= dict(zip(missing, vectors, strict=True))
    matrix = (
        np.stack([known[digest] for digest in digests])
        if digests
        else np.zeros((0, 1), dtype=np.float32)
    )
    progress.enter("writing")
    output = output_of(claim)
    write_index(output, matrix, documents)
    return {
        "manifest": build_manifest(output).to_json(),
        "dimensions": int(matrix.shape[1]),
        "chunks": len(texts),
        "reused": reused,
        "versions": [each.version for each in documents],
        "revision": revision,
    }


def _cut(base: KnowledgeBase) -> tuple[list[IndexedDocument], list[str]]:
    documents, texts = [], []
    for version in current_versions(base):
        text = stored_text(version.text_sha256)
        spans = chunk_spans(text, base.chunk_characters, base.overlap_characters)
        documents.append(IndexedDocument(version.pk, version.text_sha256, tuple(spans)))
        texts += [text[start:end] for start, end in spans]
        if len(texts) > MAX_CHUNKS:
            raise BadMaterial(
                f"{base.name} has more than {MAX_CHUNKS:,} chunks, the most that an index holds. "
                "Remove documents, or create a second knowledge base."
            )
    return documents, texts


def _known_vectors(base: KnowledgeBase, progress: LeasedProgress) -> dict[bytes, Vectors]:
    """Vectors of the present index by the SHA-256 of their chunk; none if it cannot be trusted."""
    index = base.index
    if index is None or index.embedding_digest != base.embedding_version.digest:
        return {}
    try:
        manifest = Manifest.from_json(index.manifest)
        loaded = read_index(manifest)
    except (ManifestMismatch, FilesUnreadable) as error:
        progress.warn(f"The present index is not used: {error.message} Everything is embedded.")
        return {}
    found: dict[bytes, Vectors] = {}
    row = 0
    for document in loaded.documents:
        rows = loaded.vectors[row : row + len(document.spans)]
        row += len(document.spans)
        try:
            text = stored_text(document.text_sha256)
        except Unavailable:
            # The version may not be in force any more; if it is, `_cut` has raised.
            progress.warn(f"A text of document version {document.version} is not in the store.")
            continue
        for (start, end), vector in zip(document.spans, rows, strict=True):
            found[hashlib.sha256(text[start:end].encode()).digest()] = vector
    return found


def _embedder(claim: Claim, version: ModelVersion) -> Judge:
    if version.state != VersionState.TRUSTED:
        raise BadMaterial(f"{version} is {version.state}; it embeds nothing.")
    task = get_task(version.model.task)
    return Judge(
        name=str(version),
        digest=version.digest,
        folder=version_copy(claim, version, "embedding"),
        engine=task.engine,
        runner=task.runner,
        architectures=task.architectures,
    )
