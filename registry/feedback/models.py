"""Feedback of applications and people on single answers, and a reviewer's decision on it."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from governance.bounds import NAME_MAX, REQUEST_ID_MAX, TASK_MAX

COMMENT_MAX = 2000


class Rating(models.TextChoices):
    """Verdict of the sender on the whole answer."""

    UP = "up", "good"
    DOWN = "down", "bad"


class FeedbackState(models.TextChoices):
    """`accepted` feedback has a `row`, which dataset versions may hold. `erased` has no content."""

    PENDING = "pending", "pending review"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ERASED = "erased"


class Feedback(models.Model):
    """Feedback on one recorded request, of the department that sent the request.

    `request_id`, `deployment`, `release`, `version`, `version_name`, `task` and `endpoint` are
    taken from the ledger and the release. `input` is the request's body, repeated by the sender,
    since Assay stores neither request nor answer elsewhere; `answer` is the model's answer,
    `correction` the right one. `content_digest` identifies repeated feedback with the same content,
    `record_digest` the ledger's record, also in an export after its month was dropped. `person` is
    the sender in the playground, empty for applications; `sender` is the public ID of the
    credential.
    """

    request_id = models.CharField(max_length=REQUEST_ID_MAX, unique=True)
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    deployment = models.CharField(max_length=NAME_MAX)
    endpoint = models.CharField(max_length=60)
    task = models.CharField(max_length=TASK_MAX)
    release = models.ForeignKey("registry.Release", on_delete=models.PROTECT, related_name="+")
    version = models.ForeignKey("registry.ModelVersion", on_delete=models.PROTECT, related_name="+")
    version_name = models.CharField(max_length=100)
    rating = models.CharField(max_length=4, choices=Rating.choices, blank=True)
    input = models.JSONField(null=True, blank=True)
    answer = models.TextField(blank=True)
    correction = models.TextField(blank=True)
    comment = models.CharField(max_length=COMMENT_MAX, blank=True)
    content_digest = models.CharField(max_length=64, blank=True)
    record_digest = models.CharField(max_length=64, blank=True, default="", db_default="")
    row = models.JSONField(null=True, blank=True)
    state = models.CharField(
        max_length=8, choices=FeedbackState.choices, default=FeedbackState.PENDING
    )
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    sender = models.CharField(max_length=16)
    answered_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    reviewed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    reviewed_at = models.DateTimeField(null=True, blank=True)
    erased_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        indexes = (
            models.Index(fields=("department", "state", "-id"), name="feedback_to_review"),
            models.Index(fields=("deployment", "-id"), name="feedback_by_deployment"),
        )
        constraints = (
            models.CheckConstraint(
                name="feedback_reviewed_by_another",
                condition=Q(reviewed_by__isnull=True)
                | Q(person__isnull=True)
                | ~Q(reviewed_by=F("person")),
            ),
            models.CheckConstraint(
                name="accepted_feedback_has_a_row_and_a_reviewer",
                condition=~Q(state=FeedbackState.ACCEPTED)
                | Q(row__isnull=False, reviewed_by__isnull=False, reviewed_at__isnull=False),
            ),
            models.CheckConstraint(
                name="erased_feedback_has_no_content",
                condition=~Q(state=FeedbackState.ERASED)
                | Q(
                    input__isnull=True,
                    row__isnull=True,
                    answer="",
                    correction="",
                    comment="",
                    content_digest="",
                    erased_at__isnull=False,
                ),
            ),
        )

    def __str__(self) -> str:
        return f"feedback {self.pk}"
