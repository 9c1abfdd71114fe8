"""Knowledge bases: documents in versions, their index, and the answers that used them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Line, Paragraphs, Slug, StrictSerializer
from assay.api.idempotency import idempotent
from assay.api.parsers import BoundedMultiPartParser
from assay.api.representations.common import Link, PersonReference, slug
from assay.api.representations.workers import JobAnswer
from governance.bounds import DEPARTMENT_MAX, DESCRIPTION_MAX, FILENAME_MAX, NAME_MAX
from governance.people.selectors import department_get
from governance.usage.selectors import answers_from_source
from registry.datasets.models import Classification
from registry.knowledge.chunks import CHUNK_DEFAULT, CHUNK_MAX, CHUNK_MIN, OVERLAP_DEFAULT
from registry.knowledge.documents import (
    document_draft_delete,
    document_version_add,
    document_version_allow,
    document_version_recall,
)
from registry.knowledge.models import REASON_MAX, TITLE_MAX
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


class IndexAnswer(serializers.Serializer[Any]):
    """The newest index; `documents` are the ids of the document versions in it."""

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
    """A recalled version. `same_text` are the ids of versions that you may see, of any knowledge
    base, that have its text and stay in force."""

    same_text = serializers.ListField(child=serializers.IntegerField())


class UseAnswer(serializers.Serializer[Any]):
    """A request that was answered from a document version."""

    id = serializers.IntegerField()
    request_id = serializers.CharField()
    occurred_at = serializers.DateTimeField()
    department = serializers.CharField()
    key = serializers.CharField(source="key_public_id")
    deployment = serializers.CharField()
    release = serializers.IntegerField(allow_null=True)


class KnowledgeBaseBody(StrictSerializer):
    """A new knowledge base; `embedding_version` is the id of a trusted version."""

    name = Slug(max_length=NAME_MAX)
    department = Slug(max_length=DEPARTMENT_MAX)
    title = Line(max_length=TITLE_MAX)
    description = Paragraphs(max_length=DESCRIPTION_MAX, required=False, allow_blank=True)
    embedding_version = serializers.IntegerField(min_value=1, max_value=2**63 - 1)
    chunk_characters = serializers.IntegerField(
        min_value=CHUNK_MIN, max_value=CHUNK_MAX, default=CHUNK_DEFAULT
    )
    overlap_characters = serializers.IntegerField(
        min_value=0, max_value=CHUNK_MAX // 2, default=OVERLAP_DEFAULT
    )


class KnowledgeBasesView(Endpoint):
    """Knowledge bases."""

    @operation("Knowledge", "List knowledge bases", answer=KnowledgeBaseAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(knowledge_bases_visible_to(self.actor), KnowledgeBaseAnswer)

    @operation(
        "Knowledge",
        "Create a knowledge base",
        body=KnowledgeBaseBody,
        answer=KnowledgeBaseAnswer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        given = self.body(KnowledgeBaseBody)
        made = knowledge_base_create(
            actor=self.actor,
            department=department_get(slug=given.pop("department")),
            embedding_version=version_get(actor=self.actor, id=given.pop("embedding_version")),
            **given,
        )
        return self.answer(made, KnowledgeBaseAnswer, status=201)


class KnowledgeBaseView(Endpoint):
    """One knowledge base."""

    @operation("Knowledge", "One knowledge base", answer=KnowledgeBaseAnswer)
    def get(self, request: Request, name: str) -> Response:
        self.query()
        return self.answer(knowledge_base_get(actor=self.actor, name=name), KnowledgeBaseAnswer)


class ShareBody(StrictSerializer):
    """Every other department that may search the knowledge base."""

    departments = serializers.ListField(child=Slug(max_length=DEPARTMENT_MAX), max_length=200)


class KnowledgeShareView(Endpoint):
    """Sharing of one knowledge base."""

    @operation(
        "Knowledge",
        "Set which other departments may search it",
        body=ShareBody,
        answer=KnowledgeBaseAnswer,
    )
    def post(self, request: Request, name: str) -> Response:
        given = self.body(ShareBody)
        base = knowledge_base_get(actor=self.actor, name=name)
        departments = [department_get(slug=slug) for slug in given["departments"]]
        knowledge_base_share(actor=self.actor, base=base, departments=departments)
        return self.answer(knowledge_base_get(actor=self.actor, name=name), KnowledgeBaseAnswer)


class KnowledgeIndexView(Endpoint):
    """The index of one knowledge base."""

    @operation("Knowledge", "Build the index", answer=JobAnswer, status=202)
    def post(self, request: Request, name: str) -> Response:
        self.nothing()
        base = knowledge_base_get(actor=self.actor, name=name)
        return self.answer(index_request(actor=self.actor, base=base), JobAnswer, status=202)


class DocumentBody(StrictSerializer):
    """A text, Markdown, HTML or PDF file; with `replaces`, the id of a version, the next version of
    the same document."""

    file = serializers.FileField(max_length=FILENAME_MAX)
    classification = Choice(choices=Classification.choices)
    title = Line(max_length=TITLE_MAX, required=False, allow_blank=True)
    replaces = serializers.IntegerField(min_value=1, max_value=2**63 - 1, required=False)


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
        self.query()
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
        given: dict[str, Any] = self.body(DocumentBody)
        base = knowledge_base_get(actor=self.actor, name=name)
        made = document_version_add(actor=self.actor, base=base, **given)
        return self.answer(made, DocumentVersionAnswer, status=201)


class DocumentView(Endpoint):
    """One version of a document."""

    @operation("Knowledge", "One document version", answer=DocumentVersionAnswer)
    def get(self, request: Request, document_id: int) -> Response:
        self.query()
        found = document_version_get(actor=self.actor, id=document_id)
        return self.answer(found, DocumentVersionAnswer)

    @operation("Knowledge", "Delete a draft", answer=None, status=204)
    def delete(self, request: Request, document_id: int) -> Response:
        document_version_get(actor=self.actor, id=document_id)
        document_draft_delete(actor=self.actor, version_id=document_id)
        return Response(status=204)


class DocumentPublishView(Endpoint):
    """Publication of a draft."""

    @operation("Knowledge", "Publish a draft and index it", answer=DocumentVersionAnswer)
    def post(self, request: Request, document_id: int) -> Response:
        self.nothing()
        document_version_get(actor=self.actor, id=document_id)
        document_publish_request(actor=self.actor, version_id=document_id)
        found = document_version_get(actor=self.actor, id=document_id)
        return self.answer(found, DocumentVersionAnswer)


class DocumentRecallBody(StrictSerializer):
    """The reason of a recall."""

    reason = Paragraphs(max_length=REASON_MAX)


class DocumentRecallView(Endpoint):
    """A recall. It is for good."""

    @operation(
        "Knowledge",
        "Recall a document version",
        body=DocumentRecallBody,
        answer=DocumentRecalledAnswer,
    )
    def post(self, request: Request, document_id: int) -> Response:
        given = self.body(DocumentRecallBody)
        document_version_get(actor=self.actor, id=document_id)
        document_version_recall(actor=self.actor, version_id=document_id, reason=given["reason"])
        found: Any = document_version_get(actor=self.actor, id=document_id)
        found.same_text = list(same_text(self.actor, found).values_list("pk", flat=True))
        return self.answer(found, DocumentRecalledAnswer)


class DocumentAnswersView(Endpoint):
    """Answers that used one version of a document."""

    @operation(
        "Knowledge", "List answers that used a document version", answer=UseAnswer, paged=True
    )
    def get(self, request: Request, document_id: int) -> Response:
        self.query()
        version = document_version_get(actor=self.actor, id=document_id)
        _, rows = answers_from_source(self.actor, version.pk)
        return self.page(rows, UseAnswer)
