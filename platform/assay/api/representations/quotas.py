"""Limits, prices, alerts and usage sums."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework import serializers

from assay.api.representations.common import slug


class QuotaAnswer(serializers.Serializer[Any]):
    """One limit and its current use. Money is in micro-units of the currency. `department`, `key`
    and `deployment` are null for a limit on the organization. `reserved` is for running requests.
    `stops_today` counts requests over the limit; with `shadow` they were not stopped. Figures of
    use are null while the store of the counters does not answer.
    """

    id = serializers.IntegerField(source="row.pk")
    kind = serializers.CharField(source="row.kind")
    limit = serializers.IntegerField(source="row.limit")
    shadow = serializers.BooleanField(source="row.shadow")
    subject = serializers.CharField(source="row.subject")
    department = slug("row.department.slug", allow_null=True, default=None)
    key = serializers.IntegerField(source="row.api_key_id", allow_null=True)
    deployment = serializers.SerializerMethodField()
    description = serializers.CharField(source="words")
    used = serializers.IntegerField(allow_null=True)
    reserved = serializers.IntegerField(allow_null=True)
    remaining = serializers.IntegerField(allow_null=True)
    percent = serializers.IntegerField(allow_null=True)
    full = serializers.BooleanField()
    stops_today = serializers.IntegerField(source="stops", allow_null=True)
    resets_at = serializers.DateTimeField(allow_null=True)

    def get_deployment(self, use: Any) -> str | None:
        return use.row.deployment or None


class EffectiveAnswer(serializers.Serializer[Any]):
    """Every limit that applies to a request, widest subject first. All must have room. If several
    have none, the refusal names the one with the longest wait.
    """

    limits = QuotaAnswer(many=True)
    stopped_by = serializers.ListField(child=serializers.CharField())


class AlertAnswer(serializers.Serializer[Any]):
    """The highest threshold that a budget has reached in its current window, in percent."""

    id = serializers.IntegerField()
    quota = serializers.IntegerField(source="limit_id")
    subject = serializers.CharField(source="limit.subject")
    kind = serializers.CharField(source="limit.kind")
    window = serializers.CharField()
    threshold = serializers.IntegerField()
    raised_at = serializers.DateTimeField()


class PriceAnswer(serializers.Serializer[Any]):
    """Micro-units of the currency per million prompt and completion tokens, and per second of
    device time; `units` has prices by unit other than tokens. The price with `deployment` null
    applies to all other deployments, and to jobs.
    """

    deployment = serializers.SerializerMethodField()
    prompt = serializers.IntegerField()
    completion = serializers.IntegerField()
    device_second = serializers.IntegerField()
    units = serializers.DictField(child=serializers.IntegerField())
    currency = serializers.SerializerMethodField()
    updated_at = serializers.DateTimeField()

    def get_deployment(self, price: Any) -> str | None:
        return price.deployment or None

    def get_currency(self, price: Any) -> str:
        return settings.CURRENCY


class DriftAnswer(serializers.Serializer[Any]):
    """A counter that differs from the sum of the ledger's records."""

    window = serializers.CharField()
    subject = serializers.CharField()
    field = serializers.CharField()
    expected = serializers.IntegerField()
    found = serializers.IntegerField(source="actual")


class ReconciliationAnswer(serializers.Serializer[Any]):
    """Comparison of this day's and month's counters with the ledger. `was_ready` is false if the
    store had lost all counters; at most 200 differences are listed.
    """

    checked = serializers.IntegerField()
    differences = serializers.IntegerField()
    drifts = DriftAnswer(many=True)
    repaired = serializers.BooleanField()
    was_ready = serializers.BooleanField()


class UsageDayAnswer(serializers.Serializer[Any]):
    """Sums of one day in UTC, per group if requested; the group `null` is the sum of all smaller
    ones. `units` are sums by unit; different units are never added. Units without use are omitted.
    """

    day = serializers.DateField()
    name = serializers.CharField(allow_null=True)
    requests = serializers.IntegerField()
    failed = serializers.IntegerField()
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    units = serializers.DictField(child=serializers.IntegerField())
    device_ms = serializers.IntegerField()
    cost_micro = serializers.IntegerField()


class UsageDaysAnswer(serializers.Serializer[Any]):
    """Days with use, oldest first."""

    currency = serializers.CharField()
    by = serializers.CharField(allow_null=True)
    days = UsageDayAnswer(many=True)
