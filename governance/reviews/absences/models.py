"""Absences of reviewers, each with a deputy for one specialty."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from governance.people.models import Specialty


class Absence(models.Model):
    """A period in which `deputy` may review for `specialty` in the place of `person`.

    Only `ended_at` ever changes, which ends it early: decisions by the deputy depend on the rest.
    """

    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="absences"
    )
    deputy = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="deputyships"
    )
    specialty = models.CharField(max_length=20, choices=Specialty.choices)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    set_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="nobody_is_their_own_deputy", condition=~Q(person=F("deputy"))
            ),
            models.CheckConstraint(
                name="nobody_makes_themselves_anothers_deputy",
                condition=Q(set_by=F("person")) | ~Q(set_by=F("deputy")),
            ),
            models.CheckConstraint(
                name="an_absence_ends_after_it_starts", condition=Q(ends_at__gt=F("starts_at"))
            ),
        )
        indexes = (models.Index(fields=("deputy", "ends_at"), name="absences_of_deputy"),)

    def __str__(self) -> str:
        return f"absence {self.pk}"
