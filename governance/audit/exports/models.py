"""Exports of selected events: requested by a person, created in the background, kept for a day."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class ExportFormat(models.TextChoices):
    """`jsonl`: each event with its proof. `csv`: a zip of a readable table and the same proofs."""

    JSONL = "jsonl", "JSON lines with proofs"
    CSV = "csv", "Table with proofs (zip)"


class ExportState(models.TextChoices):
    """State of an export. The controller works on queued and running exports; done ones can be
    downloaded until they expire. Failed, canceled and expired ones have no file."""

    QUEUED = "queued", "queued"
    RUNNING = "running", "running"
    DONE = "done", "done"
    FAILED = "failed", "failed"
    CANCELED = "canceled", "canceled"
    EXPIRED = "expired", "expired"


ALLOWED_TRANSITIONS: dict[ExportState, frozenset[ExportState]] = {
    ExportState.QUEUED: frozenset({ExportState.RUNNING, ExportState.CANCELED}),
    ExportState.RUNNING: frozenset(
        {ExportState.QUEUED, ExportState.DONE, ExportState.FAILED, ExportState.CANCELED}
    ),
    ExportState.DONE: frozenset({ExportState.EXPIRED}),
    ExportState.FAILED: frozenset(),
    ExportState.CANCELED: frozenset(),
    ExportState.EXPIRED: frozenset(),
}


class AuditExport(models.Model):
    """An export of the events that `filters` select and `person` may see.

    Its proofs lead to the checkpoint over `tree_size` events. `searched` is the number of events
    searched so far, `rows` of those that match, `packed` of those in the zip. The process that
    creates it has the lease with number `fence`, and loses it unless it renews it in time. `sha256`
    and `size` describe the file.
    """

    person = models.ForeignKey(
        "governance.Person",
        on_delete=models.PROTECT,
        related_name="audit_exports",
        db_index=False,
    )
    address = models.CharField(max_length=64, blank=True)
    filters = models.JSONField(default=dict)
    format = models.CharField(max_length=8, choices=ExportFormat)
    state = models.CharField(max_length=10, choices=ExportState, default=ExportState.QUEUED)
    fence = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    tree_size = models.BigIntegerField(null=True, blank=True)
    searched = models.BigIntegerField(default=0)
    rows = models.BigIntegerField(default=0)
    packed = models.BigIntegerField(default=0)
    size = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    error = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="a_finished_export_has_a_digest_and_an_end",
                condition=~Q(state="done") | (~Q(sha256="") & Q(expires_at__isnull=False)),
            ),
        )
        indexes = (
            models.Index(fields=("person", "-id"), name="audit_exports_of_person"),
            models.Index(
                fields=("id",),
                condition=Q(state__in=("queued", "running")),
                name="audit_exports_under_way",
            ),
        )

    def __str__(self) -> str:
        return f"export {self.pk}"

    @property
    def percent(self) -> int:
        """Progress in percent, 0 to 100."""
        if self.state == ExportState.DONE:
            return 100
        if not self.tree_size:
            return 0
        searched = 100 * self.searched // self.tree_size
        if self.format != ExportFormat.CSV:
            return searched
        return (searched + (100 * self.packed // self.rows if self.rows else 0)) // 2

    @property
    def is_live(self) -> bool:
        """True while the export is queued or running."""
        return self.state in (ExportState.QUEUED, ExportState.RUNNING)
