"""Limits, prices, jobs' holds on budgets, and raised alerts."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from governance.quotas.kinds import KIND_CHOICES, ORGANIZATION


class QuotaLimit(models.Model):
    """A limit on a department, an API key, a deployment (by name) or else the organization. All
    limits that apply to a request must have room. A `shadow` limit counts and reports, but does not
    stop requests. Money is in micro-units of the currency.
    """

    department = models.ForeignKey(
        "governance.Department",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="quota_limits",
    )
    api_key = models.ForeignKey(
        "governance.ApiKey",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="quota_limits",
    )
    deployment = models.CharField(max_length=NAME_MAX, blank=True, default="")
    kind = models.CharField(max_length=30, choices=KIND_CHOICES)
    limit = models.PositiveBigIntegerField()
    shadow = models.BooleanField(default=False)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("department", "api_key", "deployment", "kind"),
                nulls_distinct=False,
                name="one_limit_of_a_kind",
            ),
            models.CheckConstraint(
                name="limit_names_one_subject_at_most",
                condition=Q(department__isnull=True, api_key__isnull=True)
                | Q(department__isnull=True, deployment="")
                | Q(api_key__isnull=True, deployment=""),
            ),
        )

    def __str__(self) -> str:
        return f"{self.subject}: {self.kind} ≤ {self.limit}"

    @property
    def subject(self) -> str:
        """Subject of the limit in the counters: `department:<slug>`, `key:<public id>`, …"""
        if self.api_key is not None:
            return f"key:{self.api_key.public_id}"
        if self.department is not None:
            return f"department:{self.department.slug}"
        return f"deployment:{self.deployment}" if self.deployment else ORGANIZATION


class Price(models.Model):
    """Price of a deployment (by name), or without a name of all other deployments and jobs, in
    micro-units per million tokens and per second of device time; `units` has the prices of units of
    use other than tokens, by name.
    """

    deployment = models.CharField(max_length=NAME_MAX, blank=True, default="", unique=True)
    prompt = models.PositiveBigIntegerField(default=0)
    completion = models.PositiveBigIntegerField(default=0)
    device_second = models.PositiveBigIntegerField(default=0)
    units = models.JSONField(default=dict, db_default={}, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("deployment",)

    def __str__(self) -> str:
        return self.deployment or "default"


class HoldState(models.TextChoices):
    """State of a hold. `open`: reserved until the job ends. `ended`: its use is on the way to the
    ledger. `settled`: its use is in the ledger."""

    OPEN = "open"
    ENDED = "ended"
    SETTLED = "settled"


class BudgetHold(models.Model):
    """A job's reservation on its department's budgets, from queueing to its end.

    The counters repeat this row. `reference` is the request ID of its usage record. It is charged
    to the month of `made_at`, the time of the reservation; a resume in a later month moves it to
    that month. `device_ms` sums up all attempts over all `devices`; `running_since` is the start of
    the current attempt. A job that calls a provider uses no devices, but tokens at the provider's
    prices, per million; `tokens_micro` is the most that one attempt may cost.
    """

    reference = models.CharField(max_length=64, unique=True)
    department = models.CharField(max_length=DEPARTMENT_MAX)
    kind = models.CharField(max_length=30)
    devices = models.PositiveIntegerField(default=1, db_default=1)
    state = models.CharField(max_length=8, choices=HoldState.choices, default=HoldState.OPEN)
    reserved_device_ms = models.PositiveBigIntegerField(default=0)
    reserved_micro = models.PositiveBigIntegerField(default=0)
    device_second = models.PositiveBigIntegerField(default=0)
    device_ms = models.PositiveBigIntegerField(default=0)
    prompt_price = models.PositiveBigIntegerField(default=0, db_default=0)
    completion_price = models.PositiveBigIntegerField(default=0, db_default=0)
    tokens_micro = models.PositiveBigIntegerField(default=0, db_default=0)
    prompt_tokens = models.PositiveBigIntegerField(default=0, db_default=0)
    completion_tokens = models.PositiveBigIntegerField(default=0, db_default=0)
    outcome = models.CharField(max_length=40, blank=True, default="")
    made_at = models.DateTimeField()
    running_since = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        indexes = (
            models.Index(
                fields=("state", "id"),
                condition=~Q(state="settled"),
                name="holds_not_settled",
            ),
            models.Index(fields=("kind", "department", "-id"), name="holds_by_kind"),
            # The use of the last hours decides which department's job is claimed next.
            models.Index(
                fields=("ended_at",),
                include=("department", "device_ms"),
                condition=Q(ended_at__isnull=False),
                name="holds_by_end",
            ),
        )

    def __str__(self) -> str:
        return self.reference


class QuotaAlert(models.Model):
    """A budget that reached `threshold` percent in a window (`2026-11`, `2026-11-25`)."""

    limit = models.ForeignKey(QuotaLimit, on_delete=models.CASCADE, related_name="alerts")
    window = models.CharField(max_length=10)
    threshold = models.PositiveSmallIntegerField()
    used = models.PositiveBigIntegerField()
    limit_then = models.PositiveBigIntegerField()
    raised_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("limit", "window", "threshold"), name="one_alert_a_window"
            ),
        )

    def __str__(self) -> str:
        return f"{self.limit_id} {self.window}: {self.threshold}%"
