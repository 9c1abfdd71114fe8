"""A knowledge base behind a running gateway, with vectors of words in place of a model's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import uuid4

import numpy as np
from django.conf import settings

from registry import store
from registry.knowledge.chunks import chunk_spans
from registry.knowledge.index_format import IndexedDocument, write_index
from registry.knowledge.models import (
    Document,
    DocumentVersion,
    KnowledgeBase,
    KnowledgeIndex,
)
from registry.manifests import build_manifest
from registry.versions.models import ModelVersion
from tests.stored import stored_file
from tests.unit.assay.gateway_support import DIGEST, Reply, Stage
from workers.deployments.models import Deployment
from workers.wire import Done, InferenceRequest

DIMENSIONS = 64
SCOPES = ["deployment:invoke", "knowledge:search"]
LEAVE = "Annual leave. Employees have thirty days of leave a year."
TRAVEL = "Travel. Trains are booked in second class."


def vector(text: str) -> list[float]:
    """One number for each word, by its hash; of length 1."""
    found = np.zeros(DIMENSIONS)
    for word in text.lower().replace(".", " ").replace("?", " ").split():
        found[int(hashlib.sha256(word.encode()).hexdigest(), 16) % DIMENSIONS] += 1
    return list(map(float, found / max(np.linalg.norm(found), 1e-9)))


def embed(request: InferenceRequest, reply: Reply) -> None:
    """Answer as the embeddings task does."""
    texts = request.inputs["input"]
    reply(Done("stop", 4, 0, results=[vector(text) for text in texts], units=4))


def embedding(stage: Stage, **changes: object) -> Deployment:
    """A deployment of the version that embeds."""
    return stage.deployment(
        "embedder",
        task="embeddings",
        behavior=embed,
        **changes,  # type: ignore[arg-type]
    )


def knowledge_base(stage: Stage, version: ModelVersion, name: str = "handbook") -> KnowledgeBase:
    """An empty base of engineering's."""
    return KnowledgeBase.objects.create(
        name=name,
        department=stage.department("engineering"),
        title="Employee handbook",
        embedding_version=version,
        embedding_name="embedder v1",
        embedding_digest=DIGEST,
        chunk_characters=400,
        overlap_characters=40,
        created_by=stage.person,
    )


def add(
    stage: Stage, base: KnowledgeBase, text: str, title: str, classification: str = "internal"
) -> DocumentVersion:
    """A document in force."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    file = stored_file(sha256)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    version = DocumentVersion.objects.create(
        document=Document.objects.create(base=base, title=title, owner=stage.person),
        number=1,
        filename=f"{title}.txt",
        sha256=sha256,
        size_bytes=len(text),
        text_sha256=sha256,
        characters=len(text),
        classification=classification,
        state="current",
        created_by=stage.person,
    )
    changed(base)
    return version


def changed(base: KnowledgeBase) -> None:
    base.revision += 1
    base.save(update_fields=["revision"])


def index(base: KnowledgeBase) -> KnowledgeIndex:
    """Index what is in force, as the job does."""
    documents, texts = [], []
    for version in DocumentVersion.objects.filter(document__base=base, state="current"):
        text = stored_file(version.text_sha256).read_text()
        spans = chunk_spans(text, base.chunk_characters, base.overlap_characters)
        documents.append(IndexedDocument(version.pk, version.text_sha256, tuple(spans)))
        texts += [text[start:end] for start, end in spans]
    folder = Path(settings.DATA_DIR) / "making" / uuid4().hex
    folder.mkdir(parents=True)
    vectors = np.array([vector(text) for text in texts], dtype=np.float32)
    write_index(folder, vectors, documents, window=256)
    manifest = build_manifest(folder)
    store.adopt(folder, manifest)
    made = KnowledgeIndex.objects.create(
        base=base,
        digest=manifest.digest,
        manifest=manifest.to_json(),
        embedding_version=base.embedding_version,
        embedding_digest=DIGEST,
        dimensions=DIMENSIONS,
        chunks=len(texts),
        size_bytes=manifest.size_bytes,
        versions=[each.version for each in documents],
        job_id=uuid4(),
    )
    base.index = made
    base.save(update_fields=["index"])
    changed(base)
    return made
