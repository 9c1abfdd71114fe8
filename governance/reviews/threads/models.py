"""Threads of a review: comments on a part of its subject, and drafts of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q

KEY_MAX = 300
TEXT_MAX = 4000


class AnchorKind(models.TextChoices):
    """Kind of part that a thread is about; the subject's own context defines the parts."""

    GENERAL = "general", "the whole"
    ITEM = "item", "checklist item"
    METRIC = "metric", "metric"
    CARD = "card", "section of the model card"
    FILE = "file", "file"
    ANSWER = "answer", "risk answer"
    DOSSIER = "dossier", "section of the dossier"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A part of the subject: its kind and its key within that kind; `general` has no key."""

    kind: str = AnchorKind.GENERAL.value
    key: str = ""


class ThreadState(models.TextChoices):
    """State of a thread: open or resolved."""

    OPEN = "open"
    RESOLVED = "resolved"


class Anchored(models.Model):
    """Columns for the part of the subject, the digest and the round that a text is about."""

    anchor_kind = models.CharField(max_length=10, choices=AnchorKind.choices)
    anchor_key = models.CharField(max_length=KEY_MAX, blank=True)
    digest = models.CharField(max_length=64)
    round = models.PositiveIntegerField()

    class Meta:
        abstract = True

    @property
    def anchor(self) -> Anchor:
        """Return the part of the subject."""
        return Anchor(self.anchor_kind, self.anchor_key)


class ReviewThread(Anchored):
    """A conversation about one part. While it is open and `blocking`, approval is impossible.

    Its part, its author and `blocking` never change; only its state does.
    """

    review = models.ForeignKey(
        "governance.Review", on_delete=models.PROTECT, related_name="threads"
    )
    blocking = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=ThreadState.choices, default=ThreadState.OPEN)
    opened_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    opened_at = models.DateTimeField(auto_now_add=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    resolved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(
                name="resolved_thread_says_by_whom",
                condition=Q(state="open", resolved_by__isnull=True, resolved_at__isnull=True)
                | Q(state="resolved", resolved_by__isnull=False, resolved_at__isnull=False),
            ),
            models.CheckConstraint(
                name="thread_is_somewhere",
                condition=Q(anchor_kind="general", anchor_key="")
                | ~Q(anchor_kind="general") & ~Q(anchor_key=""),
            ),
        )

    def __str__(self) -> str:
        return f"thread {self.pk}"


class EntryKind(models.TextChoices):
    """Kind of entry of a thread."""

    COMMENT = "comment"
    RESOLVE = "resolve"
    REOPEN = "reopen"


class ThreadComment(models.Model):
    """An entry of a thread: a comment, a resolution or a reopening.

    Append-only (trigger). `decision` is the decision that it was submitted with, if any.
    """

    thread = models.ForeignKey(ReviewThread, on_delete=models.PROTECT, related_name="comments")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    said = models.CharField(max_length=10, choices=EntryKind.choices, default=EntryKind.COMMENT)
    text = models.TextField(max_length=TEXT_MAX, blank=True)
    digest = models.CharField(max_length=64)
    round = models.PositiveIntegerField()
    decision = models.ForeignKey(
        "governance.Decision",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="comments",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(
                name="comment_has_words", condition=~Q(said="comment") | ~Q(text="")
            ),
        )

    def __str__(self) -> str:
        return f"{self.said} in thread {self.thread_id}"

    @property
    def people(self) -> list[Any]:
        """Return the people whom the entry mentions."""
        return [mention.person for mention in self.mentions.all()]


class Mention(models.Model):
    """A mention of a person in a comment; unseen until they open the review."""

    comment = models.ForeignKey(ThreadComment, on_delete=models.PROTECT, related_name="mentions")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("id",)
        indexes = (
            models.Index(
                fields=("person",), condition=Q(seen_at__isnull=True), name="unseen_mentions"
            ),
        )
        constraints = (
            models.UniqueConstraint(fields=("comment", "person"), name="mentioned_once"),
        )

    def __str__(self) -> str:
        return f"person {self.person_id} in comment {self.comment_id}"


class CommentDraft(Anchored):
    """A comment that only its author sees until it is submitted with a decision.

    It begins a thread at its anchor, or replies in `thread`, whose anchor it repeats.
    """

    review = models.ForeignKey(
        "governance.Review", on_delete=models.CASCADE, related_name="comment_drafts"
    )
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    thread = models.ForeignKey(
        ReviewThread, on_delete=models.CASCADE, null=True, blank=True, related_name="+"
    )
    blocking = models.BooleanField(default=False)
    text = models.TextField(max_length=TEXT_MAX)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(name="draft_has_words", condition=~Q(text="")),
            models.CheckConstraint(
                name="answer_blocks_nothing", condition=Q(thread__isnull=True) | Q(blocking=False)
            ),
        )

    def __str__(self) -> str:
        return f"draft {self.pk}"
