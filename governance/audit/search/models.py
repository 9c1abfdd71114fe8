"""Tables for search: two small ones that sealing fills, and saved filters.

The first two are derived data, not evidence. A database trigger writes them in the transaction of
the sealer, so they cover all sealed events; a partial index finds the unsealed ones.
"""

from __future__ import annotations

from django.db import models

from governance.bounds import DEPARTMENT_MAX

SPAN_WIDTH = 1024


class AuditSpan(models.Model):
    """First and last times and policies of the `SPAN_WIDTH` events from ID `index * SPAN_WIDTH` on.

    They convert a time span to ranges of IDs, even if events were recorded late or a clock was
    wrong. An index over the time of every event would slow down each insert.
    """

    index = models.BigIntegerField(primary_key=True)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    first_policy = models.PositiveIntegerField(null=True)
    last_policy = models.PositiveIntegerField(null=True)

    def __str__(self) -> str:
        return f"span {self.index}"


class NameRole(models.TextChoices):
    """Role of a name in events."""

    ACTOR = "actor"
    SUBJECT = "subject"
    ACTION = "action"


class AuditName(models.Model):
    """An object that events name, once per name and department: thousands of rows, not millions.

    `type` and `ref` are kind and ID of an actor, type and ID of a subject, or an action and an
    empty text. People's names are not stored here, because events have them only in boxes; they are
    looked up in `Person`.
    """

    role = models.CharField(max_length=8, choices=NameRole.choices)
    type = models.CharField(max_length=60)
    ref = models.CharField(max_length=80, blank=True)
    name = models.CharField(max_length=200, blank=True)
    department = models.CharField(max_length=DEPARTMENT_MAX, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("role", "type", "ref", "name", "department"), name="a_name_is_noted_once"
            ),
        )

    def __str__(self) -> str:
        return self.name or f"{self.type} {self.ref}"


class AuditFilter(models.Model):
    """A person's saved filter of the event list.

    `parameters` are the list's query parameters, as text. All readers of the whole log see a shared
    filter; only its owner can change it.
    """

    person = models.ForeignKey(
        "governance.Person", on_delete=models.CASCADE, related_name="audit_filters"
    )
    name = models.CharField(max_length=80)
    parameters = models.JSONField()
    shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name", "id")
        constraints = (
            models.UniqueConstraint(
                fields=("person", "name"), name="one_audit_filter_per_name_and_person"
            ),
        )
        indexes = (
            models.Index(
                fields=("name",), condition=models.Q(shared=True), name="audit_shared_filters"
            ),
        )

    def __str__(self) -> str:
        return self.name
