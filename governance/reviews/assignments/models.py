"""People to whom a review is assigned."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class ReviewAssignment(models.Model):
    """A review's assignment to one person; unassigning deletes the row.

    It counts only while the person could still decide: see `assignments_in_force`.
    """

    review = models.ForeignKey(
        "governance.Review", on_delete=models.PROTECT, related_name="assignments"
    )
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    assigned_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    assigned_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = (models.UniqueConstraint(fields=("review", "person"), name="assigned_once"),)

    def __str__(self) -> str:
        return f"review {self.review_id} for person {self.person_id}"
