"""Public keys of engine worker processes."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from workers.deployments.models import WorkerKey
from workers.deployments.services import ENGINE_WORKER
from workers.dispatch import wake_engines


@transaction.atomic
def worker_key_register(*, worker: str, public_key: str) -> None:
    """Make `public_key` the one that gateways seal this worker's requests for."""
    WorkerKey.objects.update_or_create(
        worker=worker[:120], defaults={"public_key": public_key, "registered_at": timezone.now()}
    )
    audit_record(
        actor=ENGINE_WORKER,
        action="worker:register",
        subject=Subject("worker", worker[:120], worker[:120]),
        data={"public_key": public_key},
    )
    transaction.on_commit(wake_engines)
