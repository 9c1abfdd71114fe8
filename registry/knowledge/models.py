"""Knowledge bases: documents in immutable versions, and their search indexes."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from governance.bounds import DESCRIPTION_MAX, FILENAME_MAX, NAME_MAX
from registry.datasets.models import Classification

REASON_MAX = 1000


TITLE_MAX = 200


class KnowledgeBase(models.Model):
    """A department's documents, which its applications search and use in answers.

    `embedding_version` embeds all chunks and questions; its name and digest are copied here for
    departments that may not see the model itself. `departments` may also search the base, within
    the policy. `revision` counts changes of the searchable documents, so that gateways reload them
    only after a change. `index` is the newest index.
    """

    name = models.SlugField(max_length=NAME_MAX, unique=True)
    department = models.ForeignKey("governance.Department", on_delete=models.PROTECT)
    title = models.CharField(max_length=TITLE_MAX)
    description = models.CharField(max_length=DESCRIPTION_MAX, blank=True)
    departments = models.ManyToManyField("governance.Department", related_name="+", blank=True)
    embedding_version = models.ForeignKey(
        "registry.ModelVersion", on_delete=models.PROTECT, related_name="+"
    )
    embedding_name = models.CharField(max_length=120)
    embedding_digest = models.CharField(max_length=64)
    chunk_characters = models.PositiveIntegerField()
    overlap_characters = models.PositiveIntegerField()
    revision = models.PositiveIntegerField(default=0)
    index = models.ForeignKey(
        "registry.KnowledgeIndex", on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        verbose_name = "knowledge base"
        constraints = (
            models.CheckConstraint(
                name="knowledge_overlap_below_chunk",
                condition=Q(overlap_characters__lt=models.F("chunk_characters")),
            ),
        )

    def __str__(self) -> str:
        return self.name


class Document(models.Model):
    """A named series of versions of one text; `owner` is responsible for its content."""

    base = models.ForeignKey(KnowledgeBase, on_delete=models.PROTECT, related_name="documents")
    title = models.CharField(max_length=TITLE_MAX)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("title", "id")
        constraints = (
            models.UniqueConstraint(fields=("base", "title"), name="document_title_once_in_base"),
        )

    def __str__(self) -> str:
        return self.title


class DocumentState(models.TextChoices):
    """State of a document version: `draft` is not searched yet, `current` is searched, `superseded`
    was replaced by a newer version, and `recalled` is never searched again."""

    DRAFT = "draft"
    CURRENT = "current"
    SUPERSEDED = "superseded"
    RECALLED = "recalled"


class DocumentVersion(models.Model):
    """One immutable version: the file with the SHA-256 `sha256`, and its extracted text.

    Both are in the artifact store under their SHA-256. `characters` is the length of the text.
    Triggers prevent changes of the content, and any change of a recalled version.
    """

    document = models.ForeignKey(Document, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    filename = models.CharField(max_length=FILENAME_MAX)
    sha256 = models.CharField(max_length=64, db_index=True)
    size_bytes = models.BigIntegerField()
    text_sha256 = models.CharField(max_length=64)
    characters = models.PositiveIntegerField()
    classification = models.CharField(max_length=15, choices=Classification.choices)
    state = models.CharField(
        max_length=10, choices=DocumentState.choices, default=DocumentState.DRAFT
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True, blank=True)
    recalled_at = models.DateTimeField(null=True, blank=True)
    recalled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    recall_reason = models.CharField(max_length=REASON_MAX, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("document", "number"), name="document_version_number_once"
            ),
            models.UniqueConstraint(
                fields=("document",),
                condition=Q(state=DocumentState.CURRENT),
                name="one_current_version_per_document",
            ),
            models.CheckConstraint(
                name="recalled_document_says_why",
                condition=~Q(state=DocumentState.RECALLED)
                | (Q(recalled_at__isnull=False, recalled_by__isnull=False) & ~Q(recall_reason="")),
            ),
        )

    def __str__(self) -> str:
        return f"{self.document.title} v{self.number}"


class KnowledgeIndex(models.Model):
    """One artifact of vectors and passages, in the store under `digest`, and its origin.

    `versions` are the IDs of its document versions. `revision` is the base's revision before they
    were read; the index with the higher revision is newer. `reused` counts the chunks whose vectors
    were copied from the previous index.
    """

    base = models.ForeignKey(KnowledgeBase, on_delete=models.PROTECT, related_name="indexes")
    digest = models.CharField(max_length=64, db_index=True)
    manifest = models.JSONField()
    embedding_version = models.ForeignKey(
        "registry.ModelVersion", on_delete=models.PROTECT, related_name="+"
    )
    embedding_digest = models.CharField(max_length=64)
    dimensions = models.PositiveIntegerField()
    chunks = models.PositiveIntegerField()
    reused = models.PositiveIntegerField(default=0)
    size_bytes = models.BigIntegerField()
    versions = models.JSONField(default=list)
    revision = models.PositiveIntegerField(default=0)
    job_id = models.UUIDField(unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"index {self.digest[:12]} of {self.base_id}"
