"""Knowledge bases: documents in versions, their index, and the answers that used them."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from pydantic import Field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.idempotency import idempotent
from assay.api.multipart import FilledFile
from assay.api.parsers import BoundedMultiPartParser
from assay.api.representations.common import Link, PersonReference, slug
from assay.api.representations.workers import JobAnswer
from assay.api.routes import Routes
from governance.people.selectors import department_get
from governance.principals import Principal
from governance.schemas import Choice, Id, LineOrEmpty, Schema
from governance.usage.models import UsageRecord
from governance.usage.selectors import answers_from_source
from registry.datasets.models import Classification
from registry.knowledge.documents import (
    document_draft_delete,
    document_version_add,
    document_version_allow,
    document_version_recall,
)
from registry.knowledge.models import TITLE_MAX, DocumentVersion, KnowledgeBase
from registry.knowledge.schemas import DocumentRecall, KnowledgeShare, NewKnowledgeBase
from registry.knowledge.selectors import (
    document_version_get,
    document_versions_visible_to,
    knowledge_base_get,
    knowledge_bases_visible_to,
    same_text,
)
from registry.knowledge.services import knowledge_base_create, knowledge_base_share
from registry.versions.selectors import version_get
from workers.jobs.knowledge import document_publish_request, index_request
from workers.jobs.models import Job


class IndexAnswer(serializers.Serializer[Any]):
    """The newest index; `documents` are the IDs of the document versions in it."""

    digest = serializers.CharField()
    embedding_digest = serializers.CharField()
    chunks = serializers.IntegerField()
    reused = serializers.IntegerField()
    dimensions = serializers.IntegerField()
    documents = serializers.ListField(child=serializers.IntegerField(), source="versions")
    created_at = serializers.DateTimeField()


class KnowledgeBaseAnswer(serializers.Serializer[Any]):
    """A knowledge base; `index` is null before one was built."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()
    department = slug()
    departments = serializers.SerializerMethodField()
    embedding = serializers.CharField(source="embedding_name")
    embedding_digest = serializers.CharField()
    chunk_characters = serializers.IntegerField()
    overlap_characters = serializers.IntegerField()
    index = IndexAnswer(allow_null=True)
    created_by = PersonReference()
    created_at = serializers.DateTimeField()
    documents_url = Link("knowledge-bases/{0.name}/documents")

    def get_departments(self, base: Any) -> list[str]:
        return [department.slug for department in base.departments.all()]


class DocumentVersionAnswer(serializers.Serializer[Any]):
    """One immutable version of a document. `recalled_by` is null unless it is recalled."""

    id = serializers.IntegerField()
    base = serializers.CharField(source="document.base.name")
    document = serializers.IntegerField(source="document_id")
    title = serializers.CharField(source="document.title")
    owner = PersonReference(source="document.owner")
    number = serializers.IntegerField()
    filename = serializers.CharField()
    sha256 = serializers.CharField()
    text_sha256 = serializers.CharField()
    size_bytes = serializers.IntegerField()
    characters = serializers.IntegerField()
    classification = serializers.CharField()
    state = serializers.CharField()
    created_by = PersonReference()
    created_at = serializers.DateTimeField()
    published_at = serializers.DateTimeField(allow_null=True)
    recalled_at = serializers.DateTimeField(allow_null=True)
    recalled_by = PersonReference(allow_null=True)
    recall_reason = serializers.CharField()


class DocumentRecalledAnswer(DocumentVersionAnswer):
    """A recalled version. `same_text` are the IDs of versions in any knowledge base that have the
    same text, are still in force, and that you may see."""

    same_text = serializers.ListField(child=serializers.IntegerField())


class UseAnswer(serializers.Serializer[Any]):
    """A request whose answer used a document version."""

    id = serializers.IntegerField()
    request_id = serializers.CharField()
    occurred_at = serializers.DateTimeField()
    department = serializers.CharField()
    key = serializers.CharField(source="key_public_id")
    deployment = serializers.CharField()
    release = serializers.IntegerField(allow_null=True)


routes = Routes("Knowledge", KnowledgeBaseAnswer)
documents = Routes("Knowledge", DocumentVersionAnswer)


@routes.list("knowledge-bases", "List knowledge bases")
def list_knowledge(actor: Principal) -> QuerySet[KnowledgeBase]:
    return knowledge_bases_visible_to(actor)


@routes.post("knowledge-bases", "Create a knowledge base", status=201)
def create(actor: Principal, body: NewKnowledgeBase) -> KnowledgeBase:
    values = {
        **dict(body),
        "department": department_get(slug=body.department),
        "embedding_version": version_get(actor=actor, id=body.embedding_version),
    }
    return knowledge_base_create(actor=actor, **values)


@routes.get("knowledge-bases/<slug:name>", "One knowledge base")
def show(actor: Principal, name: str) -> KnowledgeBase:
    return knowledge_base_get(actor=actor, name=name)


@routes.post(
    "knowledge-bases/<slug:name>/departments",
    "Set the other departments that may search it",
    name="knowledge_share_post",
)
def share(actor: Principal, name: str, body: KnowledgeShare) -> KnowledgeBase:
    base = knowledge_base_get(actor=actor, name=name)
    departments = [department_get(slug=slug) for slug in body.departments]
    knowledge_base_share(actor=actor, base=base, departments=departments)
    return knowledge_base_get(actor=actor, name=name)


@routes.post(
    "knowledge-bases/<slug:name>/index",
    "Build the index",
    answer=JobAnswer,
    status=202,
    name="knowledge_index_post",
)
def index(actor: Principal, name: str) -> Job:
    return index_request(actor=actor, base=knowledge_base_get(actor=actor, name=name))


class DocumentBody(Schema):
    """A text, Markdown, HTML or PDF file. With `replaces`, the ID of a version, it becomes the next
    version of the same document."""

    file: FilledFile
    classification: Choice[Classification]
    title: LineOrEmpty = Field(default="", max_length=TITLE_MAX)
    replaces: Id | None = None


class KnowledgeDocumentsView(Endpoint):
    """Versions of the documents of one knowledge base."""

    upload_limit = "DOCUMENT_MAX_BYTES"
    parser_classes = (BoundedMultiPartParser,)

    def allow_body(self, name: str) -> None:
        document_version_allow(
            actor=self.actor, base=knowledge_base_get(actor=self.actor, name=name)
        )

    @operation("Knowledge", "List document versions", answer=DocumentVersionAnswer, paged=True)
    def get(self, request: Request, name: str) -> Response:
        self.query_as(Schema)
        base = knowledge_base_get(actor=self.actor, name=name)
        rows = document_versions_visible_to(self.actor).filter(document__base=base)
        return self.page(rows, DocumentVersionAnswer)

    @operation(
        "Knowledge",
        "Add a draft of a document",
        body={"multipart/form-data": DocumentBody},
        answer=DocumentVersionAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request, name: str) -> Response:
        body = self.body_as(DocumentBody)
        base = knowledge_base_get(actor=self.actor, name=name)
        created = document_version_add(actor=self.actor, base=base, **dict(body))
        return self.answer(created, DocumentVersionAnswer, status=201)


@documents.get("documents/<id:document_id>", "One document version")
def show_document(actor: Principal, document_id: int) -> DocumentVersion:
    return document_version_get(actor=actor, id=document_id)


@documents.delete("documents/<id:document_id>", "Delete a draft")
def delete(actor: Principal, document_id: int) -> None:
    document_version_get(actor=actor, id=document_id)
    document_draft_delete(actor=actor, version_id=document_id)


@documents.post("documents/<id:document_id>/publish", "Publish a draft and index it")
def publish(actor: Principal, document_id: int) -> DocumentVersion:
    document_version_get(actor=actor, id=document_id)
    document_publish_request(actor=actor, version_id=document_id)
    return document_version_get(actor=actor, id=document_id)


@documents.post(
    "documents/<id:document_id>/recall",
    "Recall a document version",
    answer=DocumentRecalledAnswer,
)
def recall(actor: Principal, document_id: int, body: DocumentRecall) -> DocumentVersion:
    document_version_get(actor=actor, id=document_id)
    document_version_recall(actor=actor, version_id=document_id, reason=body.reason)
    version = document_version_get(actor=actor, id=document_id)
    recalled: Any = version
    recalled.same_text = list(same_text(actor, version).values_list("pk", flat=True))
    return version


@documents.list(
    "documents/<id:document_id>/answers",
    "List answers that used a document version",
    answer=UseAnswer,
)
def answers(actor: Principal, document_id: int) -> QuerySet[UsageRecord]:
    version = document_version_get(actor=actor, id=document_id)
    return answers_from_source(actor, version.pk)[1]
