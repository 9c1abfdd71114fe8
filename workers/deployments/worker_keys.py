"""Registrations of engine workers: key, engines, capacity and software."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput
from governance.principals import Principal
from registry.releases.equivalence.environments import environments_keep
from workers.control.protocol import Software
from workers.deployments.models import WorkerKey
from workers.deployments.services import ENGINE_WORKER
from workers.deployments.software import code_checked
from workers.dispatch import wake_placement
from workers.placement.capacity import Capacity
from workers.wire_keys import exchange_possible

# Time for which a silent worker's key is kept. Containers get a new name at each start.
KEYS_KEPT = timedelta(hours=1)


@transaction.atomic
def worker_key_register(
    *,
    worker: str,
    public_key: str,
    engines: Sequence[str] = (),
    capacity: Capacity | None = None,
    software: Software | None = None,
    actor: Principal = ENGINE_WORKER,
) -> None:
    """Register the key for which gateways seal this worker's requests, and its engines, capacity
    and software. A worker without a capacity gets nothing to load; one with an empty key gets no
    requests.

    Raises:
        InvalidInput: the key cannot be used for a key exchange, or the software is not valid.
    """
    if public_key and not exchange_possible(public_key):
        raise InvalidInput(
            "The worker's public key is not usable.",
            fields={"public_key": ["Use an X25519 key that was made for this worker."]},
        )
    now, limits = timezone.now(), capacity or Capacity(memory=0)
    reported = software or Software()
    facts = {
        "code": code_checked(reported.code),
        "environments": environments_keep(reported.environments),
        "public_key": public_key,
        "engines": list(engines),
        "memory": limits.memory,
        "device": limits.device,
        "devices": limits.devices,
        "labels": list(limits.labels),
    }
    times = {"registered_at": now, "seen_at": now}
    # A repeated registration, such as after a lost answer, is not audited and wakes no process.
    if WorkerKey.objects.filter(worker=worker[:120], **facts).update(**times):
        return
    WorkerKey.objects.update_or_create(worker=worker[:120], defaults={**facts, **times})
    audit_record(
        actor=actor,
        action="worker:register",
        subject=Subject("worker", worker[:120], worker[:120]),
        data={"public_key": public_key},
    )
    transaction.on_commit(wake_placement)


def worker_keys_expire() -> int:
    """Delete workers that were silent for an hour; one that returns registers again. Return the
    number of deleted workers.
    """
    silent = timezone.now() - KEYS_KEPT
    return WorkerKey.objects.filter(seen_at__lt=silent, registered_at__lt=silent).delete()[0]
