"""Knowledge bases and the versions of their documents."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import Link, PersonReference, slug


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


class UseAnswer(serializers.Serializer[Any]):
    """A request that was answered from a document version."""

    id = serializers.IntegerField()
    request_id = serializers.CharField()
    occurred_at = serializers.DateTimeField()
    department = serializers.CharField()
    key = serializers.CharField(source="key_public_id")
    deployment = serializers.CharField()
    release = serializers.IntegerField(allow_null=True)
