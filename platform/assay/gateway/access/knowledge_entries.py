"""Knowledge bases in the gateway's snapshot, with the documents in force at the time of reading."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from governance.policy.engine import Resource
from registry.knowledge.models import Document, DocumentState, DocumentVersion, KnowledgeBase
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
    `embedding_digest` is that of the version that computed the vectors. `revision` is the base's
    when its documents were read.
    """

    id: int
    name: str
    title: str
    created_at: float
    resource: Resource
    embedding_name: str
    embedding_digest: str
    manifest: Manifest | None
    indexed: frozenset[int]
    revision: int = -1
    documents: Mapping[int, DocumentEntry] = field(default_factory=dict)

    def document_resource(self, classification: str) -> Resource:
        """Return the policy's resource for documents of this classification."""
        return Resource(
            type="document",
            name=f"{classification} documents of {self.name}",
            department=self.resource.department,
            attributes={**self.resource.attributes, "classification": classification},
        )


def read_knowledge(
    known: Mapping[str, KnowledgeEntry], ids: Collection[int] | None = None
) -> dict[str, KnowledgeEntry]:
    """Return `known` with the knowledge bases `ids` as they are now, or all bases. Reads them in
    two queries, and the documents of changed ones in a third.
    """
    rows = KnowledgeBase.objects.select_related("department", "index").prefetch_related(
        "departments"
    )
    if ids is not None:
        rows = rows.filter(pk__in=ids)
    before = {entry.id: entry for entry in known.values()}
    changed = [
        row.pk for row in rows if row.pk not in before or before[row.pk].revision != row.revision
    ]
    documents: dict[int, dict[int, DocumentEntry]] = {pk: {} for pk in changed}
    if changed:
        versions = DocumentVersion.objects.filter(
            state=DocumentState.CURRENT, document__base__in=changed
        ).select_related("document")
        for version in versions:
            documents[version.document.base_id][version.pk] = _document_entry(version)
    entries = {
        name: entry for name, entry in known.items() if ids is not None and entry.id not in ids
    }
    for row in rows:
        try:
            entries[row.name] = _entry(
                row, documents[row.pk] if row.pk in documents else before[row.pk].documents
            )
        except Exception:
            # Leave this one out, so that it is not searched; the others are unaffected.
            logger.exception("Knowledge base %s cannot be read; it is not searched", row.name)
    return entries


def bases_of(documents: Collection[int]) -> set[int]:
    """Return the IDs of the bases of these documents."""
    rows = Document.objects.filter(pk__in=documents).order_by()
    return set(rows.values_list("base_id", flat=True))


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


def _entry(row: KnowledgeBase, documents: Mapping[int, DocumentEntry]) -> KnowledgeEntry:
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
        revision=row.revision,
        documents=documents,
    )
