"""Table of the latest measurements, one row for each subject."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils import timezone


class Measurement(models.Model):
    """Latest figures of one subject, such as `jobs` or `store`.

    `/metrics` shows these rows, so that a scrape computes nothing, however many jobs or files there
    are. Each controller (a second one may be on standby) has its own rows: `loops@…` for its loops,
    and `code@…` for its packages of tasks.
    """

    name = models.CharField(max_length=120, primary_key=True)
    figures = models.JSONField()
    measured_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name

    @classmethod
    def keep(cls, name: str, figures: dict[str, Any]) -> None:
        """Replace the figures of one subject."""
        cls.objects.update_or_create(
            name=name, defaults={"figures": figures, "measured_at": timezone.now()}
        )
