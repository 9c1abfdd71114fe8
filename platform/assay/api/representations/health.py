"""Health of a deployment."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework import serializers


class HealthPercentilesAnswer(serializers.Serializer[Any]):
    """Milliseconds within which 50, 95 and 99% of the answers ended."""

    p50 = serializers.IntegerField()
    p95 = serializers.IntegerField()
    p99 = serializers.IntegerField()


class HealthFiguresAnswer(serializers.Serializer[Any]):
    """Figures of the requests in one step, which begins at `at`. `latency_ms` covers answered
    requests, `first_token_ms` streamed answers. `units` counts in `unit`. `error_rate` ignores
    canceled requests."""

    at = serializers.DateTimeField()
    requests = serializers.IntegerField()
    failed = serializers.IntegerField()
    canceled = serializers.IntegerField()
    error_rate = serializers.FloatField(help_text="From 0 to 1.")
    units = serializers.IntegerField()
    unit = serializers.CharField()
    cost_micro = serializers.IntegerField()
    latency_ms = HealthPercentilesAnswer(source="latency", allow_null=True)
    first_token_ms = HealthPercentilesAnswer(source="first_token", allow_null=True)


class HealthPhasesAnswer(serializers.Serializer[Any]):
    """Mean milliseconds of each phase of `requests` answers. A streamed answer has `prefill`, up to
    the first token, and `stream`; all others have `compute`."""

    requests = serializers.IntegerField()
    load = serializers.FloatField(help_text="Wait for a deployment that was scaled to zero.")
    queue = serializers.FloatField(help_text="Wait for a place in the engine.")
    prefill = serializers.FloatField()
    stream = serializers.FloatField()
    compute = serializers.FloatField()


class HealthChangeAnswer(serializers.Serializer[Any]):
    """Event that may explain a change of the figures."""

    at = serializers.DateTimeField()
    kind = serializers.CharField(help_text="release, replicas, state, policy or provider")
    text = serializers.CharField()
    reference = serializers.IntegerField(help_text="Number of the release, deployment or policy.")


class HealthWorkerAnswer(serializers.Serializer[Any]):
    """A worker that is assigned to the deployment, or finishes its last requests."""

    worker = serializers.CharField(source="place.worker")
    node = serializers.CharField(source="node.name", allow_null=True, default=None)
    state = serializers.CharField(
        source="place.replica.state",
        allow_null=True,
        default=None,
        help_text="Null before the worker's first report.",
    )
    load_seconds = serializers.FloatField(
        source="place.replica.load_seconds", allow_null=True, default=None
    )


class DeploymentHealthAnswer(serializers.Serializer[Any]):
    """Performance of all releases under a deployment's name, and what changed meanwhile."""

    deployment = serializers.IntegerField(source="deployment.pk")
    name = serializers.CharField(source="deployment.name")
    span = serializers.CharField()
    step_s = serializers.IntegerField(source="performance.window.step_s")
    until = serializers.DateTimeField(
        source="performance.window.until", help_text="End of the current step."
    )
    currency = serializers.SerializerMethodField()
    total = HealthFiguresAnswer(source="performance.total")
    points = HealthFiguresAnswer(source="performance.points", many=True)
    phases = HealthPhasesAnswer(source="performance.all_answers")
    slowest = HealthPhasesAnswer(
        source="performance.slowest", help_text="Of the slowest 5 % of the answers."
    )
    explanation = serializers.CharField(
        help_text="Phase that makes the slowest answers slow; empty if none does."
    )
    changes = HealthChangeAnswer(many=True)
    waiting = serializers.IntegerField(
        source="load.waiting", allow_null=True, help_text="Requests in the queue."
    )
    workers = HealthWorkerAnswer(source="load.copies", many=True)

    def get_currency(self, health: Any) -> str:
        return settings.CURRENCY
