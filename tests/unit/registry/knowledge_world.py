"""A knowledge base with documents, for tests."""

from __future__ import annotations

from typing import Any

from governance.people.models import Department
from governance.principals import Principal
from registry.knowledge.documents import document_version_add, document_version_publish
from registry.knowledge.models import DocumentVersion, KnowledgeBase
from registry.knowledge.services import knowledge_base_create
from registry.versions.models import ModelVersion
from tests.unit.registry.objects import Upload

LEAVE = b"Annual leave\n\nEmployees have 30 days of leave a year. Unused days expire in March.\n"
TRAVEL = b"Travel\n\nTrains are booked in second class. Flights need the approval of a lead.\n"


def base(
    actor: Principal, department: Department, embedding: ModelVersion, **changes: Any
) -> KnowledgeBase:
    given = {
        "actor": actor,
        "name": "handbook",
        "department": department,
        "title": "Employee handbook",
        "embedding_version": embedding,
        "chunk_characters": 200,
        "overlap_characters": 40,
        **changes,
    }
    return knowledge_base_create(**given)


def document(
    actor: Principal,
    base: KnowledgeBase,
    content: bytes = LEAVE,
    name: str = "leave.txt",
    *,
    publish: bool = True,
    **changes: Any,
) -> DocumentVersion:
    given = {"classification": "internal", **changes}
    version = document_version_add(actor=actor, base=base, file=Upload(name, content), **given)
    if publish:
        version = document_version_publish(actor=actor, version_id=version.pk)
    return version
