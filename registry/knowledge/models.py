"""Knowledge bases: documents in immutable versions, and the indexes that are searched."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from governance.bounds import DESCRIPTION_MAX, FILENAME_MAX, NAME_MAX
from registry.datasets.models import Classification

REASON_MAX = 1000


TITLE_MAX = 200


class KnowledgeBase(models.Model):
    """Documents of a department that its applications search and answer from.

    Chunks are embedded by exactly `embedding_version`, and so are questions; its name and digest
    stand here too, for departments that may not see the model itself. `departments` may
    search it too, within the policy. `revision` counts changes of what may be found, so that a
    gateway reads the documents again only then. `index` is the newest one that was built.
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
    """A named line of versions of one text; `owner` answers for its content."""

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
    """`draft` is not searched yet; `current` is; `superseded` was, until the next version;
    `recalled` never is again."""

    DRAFT = "draft"
    CURRENT = "current"
    SUPERSEDED = "superseded"
    RECALLED = "recalled"


class DocumentVersion(models.Model):
    """One immutable version: the file whose SHA-256 is `sha256`, and the text taken out of it.

    Both lie in the artifact store under their own SHA-256. `characters` counts the text's. Triggers
    refuse changes of content, and any change of a recalled version.
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
    """One artifact of vectors and passages, in the store under `digest`, and what made it.

    `versions` are the ids of the document versions in it. `revision` is the base's before they were
    read; of two indexes, the one with the higher revision is newer. `reused` counts the chunks
    whose vectors were taken over from the index before it.
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
