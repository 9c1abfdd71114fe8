"""Input schemas of knowledge bases."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, DESCRIPTION_MAX, NAME_MAX
from governance.schemas import Id, Line, Paragraphs, ParagraphsOrEmpty, Schema, Slug
from registry.knowledge.chunks import CHUNK_DEFAULT, CHUNK_MAX, CHUNK_MIN, OVERLAP_DEFAULT
from registry.knowledge.models import REASON_MAX, TITLE_MAX


class NewKnowledgeBase(Schema):
    """A new knowledge base; `embedding_version` is the ID of a trusted version."""

    name: Slug = Field(max_length=NAME_MAX)
    department: Slug = Field(max_length=DEPARTMENT_MAX)
    title: Line = Field(max_length=TITLE_MAX)
    description: ParagraphsOrEmpty = Field(default="", max_length=DESCRIPTION_MAX)
    embedding_version: Id
    chunk_characters: int = Field(default=CHUNK_DEFAULT, ge=CHUNK_MIN, le=CHUNK_MAX)
    overlap_characters: int = Field(default=OVERLAP_DEFAULT, ge=0, le=CHUNK_MAX // 2)


class KnowledgeShare(Schema):
    """All other departments that may search the knowledge base."""

    departments: list[Annotated[Slug, Field(max_length=DEPARTMENT_MAX)]] = Field(max_length=200)


class DocumentRecall(Schema):
    """The reason of a recall."""

    reason: Paragraphs = Field(max_length=REASON_MAX)
