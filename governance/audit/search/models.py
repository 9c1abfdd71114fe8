"""Tables for finding events: two small ones that sealing fills, and saved filters.

The first two are derived and no evidence. A database trigger writes them in the transaction that
seals, so they say something of every sealed event; of those that wait, a partial index tells.
"""

from __future__ import annotations

from django.db import models

from governance.bounds import DEPARTMENT_MAX

SPAN_WIDTH = 1024


class AuditSpan(models.Model):
    """Of the events with ids from `index * SPAN_WIDTH` on, the first and last times and policies.

    So a span of time comes to spans of ids, however late an event was recorded and whatever a clock
    did; an index over every event's time would cost each of them.
    """

    index = models.BigIntegerField(primary_key=True)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    first_policy = models.PositiveIntegerField(null=True)
    last_policy = models.PositiveIntegerField(null=True)

    def __str__(self) -> str:
        return f"span {self.index}"


class NameRole(models.TextChoices):
    """As what something stands in events."""

    ACTOR = "actor"
    SUBJECT = "subject"
    ACTION = "action"


class AuditName(models.Model):
    """Each thing that events name, once for each name and department: thousands, not millions.

    `type` and `ref` are the event's: kind and id of an actor, type and id of a subject, an action
    and nothing. People's names are not here but with the people; they stand in boxes.
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
    """A filter of the event list that a person keeps under a name.

    `parameters` are those of the list, as text. A shared one is seen by everybody who may read the
    whole log; only its owner changes it.
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
