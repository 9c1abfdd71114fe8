"""Knowledge bases in the gateway's snapshot, with the documents in force at the time of reading."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from governance.policy.engine import Resource
from registry.knowledge.models import DocumentState, DocumentVersion, KnowledgeBase
from registry.manifests import Manifest
from registry.resources import knowledge_resource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DocumentEntry:
    """A document version in force. `id` is the version's."""

    id: int
    document: int
    number: int
    title: str
    filename: str
    classification: str
    sha256: str
    text_sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class KnowledgeEntry:
    """One knowledge base. `documents` are the versions in force, by ID; only these are searched,
    even if the index contains more. `manifest` belongs to the index and is None before it is built.
    `embedding_digest` is that of the version that computed the vectors."""

    id: int
    name: str
    title: str
    created_at: float
    resource: Resource
    embedding_name: str
    embedding_digest: str
    manifest: Manifest | None
    indexed: frozenset[int]
    documents: Mapping[int, DocumentEntry] = field(default_factory=dict)

    def document_resource(self, classification: str) -> Resource:
        """Return the policy's resource for documents of this classification."""
        return Resource(
            type="document",
            name=f"{classification} documents of {self.name}",
            department=self.resource.department,
            attributes={**self.resource.attributes, "classification": classification},
        )


# Documents by base, with the base's revision when they were read. Only one thread reads snapshots.
_known: dict[int, tuple[int, dict[int, DocumentEntry]]] = {}


def read_knowledge() -> dict[str, KnowledgeEntry]:
    """Read all knowledge bases: two queries, and a third for the documents of changed ones."""
    rows = list(
        KnowledgeBase.objects.select_related("department", "index").prefetch_related("departments")
    )
    changed = [row for row in rows if _known.get(row.pk, (-1,))[0] != row.revision]
    if changed:
        documents: dict[int, dict[int, DocumentEntry]] = {row.pk: {} for row in changed}
        versions = DocumentVersion.objects.filter(
            state=DocumentState.CURRENT, document__base__in=list(documents)
        ).select_related("document")
        for version in versions:
            documents[version.document.base_id][version.pk] = _document_entry(version)
        for row in changed:
            _known[row.pk] = (row.revision, documents[row.pk])
    for removed in _known.keys() - {row.pk for row in rows}:
        del _known[removed]
    entries = {}
    for row in rows:
        try:
            entries[row.name] = _entry(row)
        except Exception:
            # Leave this one out, so that it is not searched; the others are unaffected.
            logger.exception("Knowledge base %s cannot be read; it is not searched", row.name)
    return entries


def read_recalled_documents(since: datetime) -> dict[int, str]:
    """Read the names of document versions that were recalled after `since`, by id."""
    rows = DocumentVersion.objects.filter(
        state=DocumentState.RECALLED, recalled_at__gt=since
    ).select_related("document")
    return {row.pk: str(row) for row in rows}


def _document_entry(version: DocumentVersion) -> DocumentEntry:
    return DocumentEntry(
        id=version.pk,
        document=version.document_id,
        number=version.number,
        title=version.document.title,
        filename=version.filename,
        classification=version.classification,
        sha256=version.sha256,
        text_sha256=version.text_sha256,
        size_bytes=version.size_bytes,
    )


def _entry(row: KnowledgeBase) -> KnowledgeEntry:
    index = row.index
    manifest = None if index is None else Manifest.from_json(index.manifest)
    if index is not None and manifest is not None and manifest.digest != index.digest:
        raise ValueError(f"the manifest of index {index.pk} does not have its digest")
    return KnowledgeEntry(
        id=row.pk,
        name=row.name,
        title=row.title,
        created_at=row.created_at.timestamp(),
        resource=knowledge_resource(row),
        embedding_name=row.embedding_name,
        embedding_digest=row.embedding_digest if index is None else index.embedding_digest,
        manifest=manifest,
        indexed=frozenset() if index is None else frozenset(index.versions),
        documents=_known[row.pk][1],
    )
