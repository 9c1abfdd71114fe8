"""Tables of running controllers and of the leader's lease."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

NAME_MAX = 120


class ControllerProcess(models.Model):
    """A controller that runs, or did so until it fell silent. One that ends deletes its row.

    `name` has host, process ID and a random part, so that a restart is another controller.
    """

    name = models.CharField(max_length=NAME_MAX, primary_key=True)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ("started_at", "name")

    def __str__(self) -> str:
        return self.name


class Leadership(models.Model):
    """The leader's lease, in one row. It has ended once `until` has passed by the database's clock.

    `epoch` grows each time that another controller takes the lease. Each database session of a
    leader's loop carries the epoch under which it was opened.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    holder = models.CharField(max_length=NAME_MAX)
    epoch = models.PositiveBigIntegerField()
    until = models.DateTimeField()

    class Meta:
        constraints = (models.CheckConstraint(name="one_leadership", condition=Q(id=1)),)

    def __str__(self) -> str:
        return f"{self.holder}, epoch {self.epoch}"
