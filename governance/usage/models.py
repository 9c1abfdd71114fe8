"""The append-only ledger: cost, caller and policy decision of each request."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Case, F, Q, When
from django.db.models.functions import Cast

from governance.bounds import DEPARTMENT_MAX, NAME_MAX, REQUEST_ID_MAX
from governance.usage.units import Unit

_TOKENS = Unit.TOKENS.value


class UsageRecord(models.Model):
    """A settled request or job. `request_id` is unique: a record delivered twice counts once.

    Names are stored as text, so that a record outlives the named objects. Times are in
    milliseconds, money in micro-units of the currency. `occurred_at` determines the day and month
    of the charge. `units` is the amount in `unit`: the sum of tokens, or `metered` for other units.

    `total_ms` has parts: `load_ms` waiting for a deployment that was scaled to zero, `queue_ms`
    waiting for a place in the engine, and the computing. `first_token_ms` is the time until the
    first piece of a streamed answer; null for other answers.
    """

    request_id = models.CharField(max_length=REQUEST_ID_MAX, unique=True)
    occurred_at = models.DateTimeField()
    department = models.CharField(max_length=DEPARTMENT_MAX, db_index=True)
    key_public_id = models.CharField(max_length=16)
    deployment = models.CharField(max_length=NAME_MAX)
    release = models.PositiveIntegerField(null=True)
    version_digest = models.CharField(max_length=64)
    endpoint = models.CharField(max_length=60)
    prompt_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField(default=0)
    # Integer instead of PositiveInteger: a check on a new column would scan the table under a lock.
    load_ms = models.IntegerField(default=0, db_default=0)
    queue_ms = models.PositiveIntegerField(default=0)
    first_token_ms = models.IntegerField(null=True)
    total_ms = models.PositiveIntegerField(default=0)
    device_ms = models.PositiveBigIntegerField(default=0, db_default=0)
    cost_micro = models.PositiveBigIntegerField(default=0, db_default=0)
    unit = models.CharField(max_length=20, default=_TOKENS, db_default=_TOKENS)
    metered = models.PositiveBigIntegerField(default=0, db_default=0)
    # Computed by the database, so that the amounts of a record can never contradict each other.
    units = models.GeneratedField(
        expression=Case(
            When(
                unit=_TOKENS,
                then=Cast("prompt_tokens", models.BigIntegerField())
                + Cast("completion_tokens", models.BigIntegerField()),
            ),
            default=F("metered"),
            output_field=models.BigIntegerField(),
        ),
        output_field=models.BigIntegerField(),
        db_persist=True,
    )
    outcome = models.CharField(max_length=40)
    streamed = models.BooleanField(default=False)
    policy_version = models.PositiveIntegerField(null=True)
    rules = models.JSONField(default=list)
    # IDs of the document versions in the model's input.
    sources = ArrayField(models.BigIntegerField(), default=list, db_default=[])

    class Meta:
        ordering = ("-id",)
        indexes = (
            models.Index(fields=("occurred_at",), name="usage_in_time"),
            models.Index(fields=("department", "-occurred_at"), name="usage_by_department"),
            models.Index(fields=("deployment", "-occurred_at"), name="usage_by_deployment"),
            GinIndex(fields=("sources",), condition=~Q(sources=[]), name="usage_by_source"),
        )
        constraints = (
            models.CheckConstraint(
                name="usage_in_one_unit",
                condition=Q(unit=_TOKENS, metered=0)
                | Q(~Q(unit=_TOKENS), prompt_tokens=0, completion_tokens=0),
            ),
        )

    def __str__(self) -> str:
        return self.request_id
