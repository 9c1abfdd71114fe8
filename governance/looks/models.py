"""Times at which people last looked at an object, so that its page can show newer changes."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from governance.bounds import NAME_MAX


class LookKind(models.TextChoices):
    """Kind of object whose changes are shown. `POLICY` is the policy in force."""

    REVIEW = "review"
    MODEL = "model"
    POLICY = "policy"


class Look(models.Model):
    """A person's last look at an object. `reference` is its number or name, empty for the policy.

    `since` is the end of the previous look; later changes are new. It stays the same during a look,
    so that a reload does not hide them.
    """

    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=10, choices=LookKind.choices)
    reference = models.CharField(max_length=NAME_MAX)
    since = models.DateTimeField(null=True)
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ("-seen_at",)
        constraints = (
            models.UniqueConstraint(fields=("person", "kind", "reference"), name="one_look_each"),
        )
        indexes = (models.Index(fields=("person", "-seen_at"), name="looks_of_person"),)

    def __str__(self) -> str:
        return f"{self.person_id} at {self.kind} {self.reference}"
