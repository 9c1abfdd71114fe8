"""The engines that running workers offer, and deployments that wait for one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from registry.catalog.engines import ENGINE_TITLES, EngineName
from workers.deployments.models import Deployment, DeploymentState, WorkerKey

WAITS = "Waiting for an engine worker to load it."
SILENCE_S = 15


def engines_offered() -> frozenset[str]:
    """Return the names of the engines that the workers seen lately offer together."""
    since = timezone.now() - timedelta(seconds=SILENCE_S)
    rows = WorkerKey.objects.filter(seen_at__gte=since).values_list("engines", flat=True)
    return frozenset(str(name) for engines in rows for name in engines)


def engines_report(*, worker: str, engines: Sequence[str]) -> None:
    """Record the engines that a worker process offers now."""
    WorkerKey.objects.filter(worker=worker[:120]).update(
        engines=list(engines), seen_at=timezone.now()
    )


def waiting_message(engine: str, offered: frozenset[str]) -> str:
    """Return why a deployment is pending: it has to wait, or no worker offers its engine."""
    if engine in offered or not offered:
        return WAITS
    title = ENGINE_TITLES[EngineName(engine)]
    return f"No running engine worker offers {title}. Start one that has it installed."


def deployments_name_missing_engines() -> int:
    """State on each pending deployment whether a worker offers its engine; a duty of the
    controller. Returns how many messages changed.
    """
    pending = Deployment.objects.filter(state=DeploymentState.PENDING)
    rows = list(pending.values_list("pk", "release__engine", "message"))
    if not rows:
        return 0
    offered, changed = engines_offered(), 0
    with transaction.atomic():
        for pk, engine, message in rows:
            wanted = waiting_message(engine, offered)
            if message != wanted and (engine not in offered or message.startswith("No running")):
                changed += pending.filter(pk=pk, message=message).update(message=wanted)
    return changed
