"""The append-only ledger: cost, caller and policy decision of each request."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex, GinIndex
from django.db import models
from django.db.models import Case, F, Q, When
from django.db.models.functions import Cast

from governance.bounds import DEPARTMENT_MAX, MEASURE_MAX, NAME_MAX, REQUEST_ID_MAX
from governance.usage.units import Unit

_TOKENS = Unit.TOKENS.value


class UsageRecord(models.Model):
    """A settled request or job. A record that is delivered twice counts once: a trigger skips a
    record whose request has a `BilledRequest`.

    The table is partitioned by month of `occurred_at` (UTC), so that old months can be exported and
    dropped (`workers.retention`). No row may refer to a record: others keep `record_digest`.

    Names are stored as text, so that a record outlives the named objects. Times are in
    milliseconds, money in micro-units of the currency. `occurred_at` determines the day and month
    of the charge. `units` is the amount in `unit`: the sum of tokens, or `metered` for other units.

    `total_ms` has parts: `admit_ms` until the request was sent to workers, `load_ms` waiting for a
    deployment that was scaled to zero, `retry_ms` on targets that failed before another one
    answered, `queue_ms` waiting for a place in the engine, `connect_ms` connecting to a provider,
    and the computing. `settle_ms` follows `total_ms`: the time until the settlement was accepted.
    Phases that did not occur or are unknown are null. `first_token_ms` is the time until the first
    piece of a streamed answer; null for other answers.
    """

    request_id = models.CharField(max_length=REQUEST_ID_MAX)
    occurred_at = models.DateTimeField()
    department = models.CharField(max_length=DEPARTMENT_MAX)
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
    # Columns that are null do not count in `assay_record_digest`, because older records lack them.
    admit_ms = models.IntegerField(null=True)
    retry_ms = models.IntegerField(null=True)
    connect_ms = models.IntegerField(null=True)
    settle_ms = models.IntegerField(null=True)
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
            models.Index(fields=("request_id",), name="usage_by_request"),
            models.Index(fields=("occurred_at",), name="usage_in_time"),
            models.Index(fields=("department", "-occurred_at"), name="usage_by_department"),
            models.Index(fields=("deployment", "-occurred_at"), name="usage_by_deployment"),
            models.Index(fields=("key_public_id", "-occurred_at"), name="usage_by_key"),
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


class BilledRequest(models.Model):
    """A request with a record in the ledger. Written by a trigger of the ledger.

    The table is not partitioned, so that a request that is reported in two months counts once. Rows
    are deleted with their month: then the collector refuses late reports of that month.
    """

    request_id = models.CharField(max_length=REQUEST_ID_MAX, primary_key=True)
    occurred_at = models.DateTimeField()

    class Meta:
        indexes = (BrinIndex(fields=("occurred_at",), name="billed_in_time"),)

    def __str__(self) -> str:
        return self.request_id


class UsageTotal(models.Model):
    """Sums of the ledger over a day, hour or week (`step`, beginning at `at` in UTC, weeks on
    Mondays) and a department.

    `by` states what `name` is: a deployment, the public ID of a key, the digest of a version, or
    empty for everything. `release` is 0 except for hours of deployments. A trigger of the ledger
    adds each new record in its transaction, so the sums are exact. They are kept after a month of
    the ledger was dropped.
    """

    class Step(models.TextChoices):
        """Length of the period."""

        HOUR = "hour"
        DAY = "day"
        WEEK = "week"

    class By(models.TextChoices):
        """Kind of `name`."""

        ALL = ""
        DEPLOYMENT = "deployment"
        KEY = "key"
        VERSION = "version"

    step = models.CharField(max_length=4, choices=Step.choices)
    by = models.CharField(max_length=10, choices=By.choices, blank=True)
    name = models.CharField(max_length=NAME_MAX, blank=True)
    at = models.DateTimeField()
    department = models.CharField(max_length=DEPARTMENT_MAX, blank=True)
    release = models.PositiveIntegerField(default=0)
    jobs = models.BooleanField()
    unit = models.CharField(max_length=20)
    requests = models.PositiveBigIntegerField()
    answered = models.PositiveBigIntegerField()
    failed = models.PositiveBigIntegerField()
    canceled = models.PositiveBigIntegerField()
    prompt_tokens = models.PositiveBigIntegerField()
    completion_tokens = models.PositiveBigIntegerField()
    units = models.PositiveBigIntegerField()
    device_ms = models.PositiveBigIntegerField()
    cost_micro = models.PositiveBigIntegerField()
    total_ms = models.PositiveBigIntegerField()
    last_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("step", "by", "name", "at", "department", "release", "jobs", "unit"),
                name="one_sum_of_usage",
            ),
        )
        indexes = (models.Index(fields=("step", "by", "at"), name="usage_totals_in_time"),)

    def __str__(self) -> str:
        return f"{self.step} {self.at} {self.by} {self.name}"


class ShadowTotal(models.Model):
    """Sums over the copies of requests that `release` answered as a shadow, and over the requests,
    which release `against` answered. There is one row for each pair of releases under a name.

    `copies` counts all copies, `failed` and `against_failed` those that one side failed, `answered`
    those that both sides answered; the next six columns are sums over the latter. `agreement` is
    the sum of the agreements, from 0 to 1 each, of the `compared` answers; `measure` says how they
    were compared. Answers themselves are not stored.
    """

    deployment = models.CharField(max_length=NAME_MAX)
    department = models.CharField(max_length=DEPARTMENT_MAX)
    release = models.PositiveIntegerField()
    against = models.PositiveIntegerField()
    unit = models.CharField(max_length=20)
    copies = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)
    against_failed = models.PositiveBigIntegerField(default=0)
    answered = models.PositiveBigIntegerField(default=0)
    total_ms = models.PositiveBigIntegerField(default=0)
    against_ms = models.PositiveBigIntegerField(default=0)
    units = models.PositiveBigIntegerField(default=0)
    against_units = models.PositiveBigIntegerField(default=0)
    cost_micro = models.PositiveBigIntegerField(default=0)
    against_cost_micro = models.PositiveBigIntegerField(default=0)
    measure = models.CharField(max_length=MEASURE_MAX, blank=True)
    compared = models.PositiveBigIntegerField(default=0)
    agreement = models.FloatField(default=0.0)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("release", "against", "deployment"), name="one_sum_of_a_shadow"
            ),
            models.CheckConstraint(
                name="a_shadow_agrees_at_most_wholly",
                condition=Q(
                    answered__lte=F("copies"),
                    compared__lte=F("answered"),
                    agreement__gte=0,
                    agreement__lte=F("compared"),
                ),
            ),
        )

    def __str__(self) -> str:
        return f"release {self.release} against {self.against} as {self.deployment}"


def _counts() -> ArrayField[Any, Any]:
    return ArrayField(models.BigIntegerField())


class UsageTimes(models.Model):
    """Durations of the answers of a deployment to a department, in a day or six hours (`step`).

    `buckets` has lower bounds in milliseconds: the five most significant bits of a duration, so
    that percentiles are at most 3 % off. `answers` has the number of answers of each bucket, and
    the next five columns the sums of their phases in milliseconds. `first_buckets` and
    `first_answers` count times to the first token. The controller adds new records every few
    minutes (`usage.times`).
    """

    class Step(models.TextChoices):
        """Length of the period: a day, or a part of six hours."""

        DAY = "day"
        PART = "part"

    step = models.CharField(max_length=4, choices=Step.choices)
    deployment = models.CharField(max_length=NAME_MAX)
    at = models.DateTimeField()
    department = models.CharField(max_length=DEPARTMENT_MAX, blank=True)
    buckets = ArrayField(models.IntegerField())
    answers = _counts()
    load = _counts()
    queue = _counts()
    prefill = _counts()
    stream = _counts()
    compute = _counts()
    first_buckets = ArrayField(models.IntegerField())
    first_answers = _counts()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("step", "deployment", "at", "department"), name="one_row_of_times"
            ),
        )

    def __str__(self) -> str:
        return f"{self.step} {self.at} {self.deployment}"


class UsageTimesProgress(models.Model):
    """Progress of adding the ledger's durations to `UsageTimes`, in one row: the newest ID."""

    record_id = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"up to record {self.record_id}"
