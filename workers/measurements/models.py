"""One row for each subject that is measured."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils import timezone


class Measurement(models.Model):
    """The last figures of one subject, such as `jobs` or `store`.

    `/metrics` shows what stands here. A scrape computes nothing, however large jobs or store are.
    Figures of loops have a row for each controller, `loops@…`: a second one may stand by. So have
    the packages of tasks that it runs, `code@…`.
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
