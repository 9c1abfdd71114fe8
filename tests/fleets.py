"""A fleet of engine workers and deployments as rows, for the simulation of placement and its test.

Releases have no dossiers, so that nothing of it may serve: placement does not ask.
"""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from governance.people.models import Department, Person
from registry.releases.models import Release
from registry.versions.models import Model, ModelVersion
from workers.deployments.models import Deployment, Replica, ReplicaState, WorkerKey
from workers.deployments.states import LIVE
from workers.placement.models import Placement
from workers.placement.planning import WAITS

GB = 10**9
# Of so many deployments one is a base, serving by itself; the others are its adapters.
PER_BASE = 5


def workers_make(count: int, *, memory: int = 64 * GB) -> None:
    """Make workers, one on each node, that have just reported."""
    now = timezone.now()
    WorkerKey.objects.bulk_create(
        WorkerKey(
            worker=f"node-{number:03}/engine",
            public_key=f"{number:064x}",
            registered_at=now,
            seen_at=now,
            engines=["own"],
            memory=memory,
            devices=1,
        )
        for number in range(count)
    )


def deployments_make(count: int, *, first: int = 0, replicas: int = 1) -> list[Deployment]:
    """Make pending deployments: bases of 2 to 14 GB, and four adapters of 50 MB on each."""
    person, _ = Person.objects.get_or_create(email="fleet@example.org", defaults={"name": "Fleet"})
    department, _ = Department.objects.get_or_create(slug="fleet", defaults={"name": "Fleet"})
    model, _ = Model.objects.get_or_create(
        name="fleet",
        defaults={"department": department, "task": "text-generation", "created_by": person},
    )
    bases: dict[int, ModelVersion] = {}
    versions = []
    for number in range(first, first + count):
        group, place = divmod(number, PER_BASE)
        if group not in bases:
            bases[group] = _version(model, person, group, size=(2 + group % 13) * GB)
        base = bases[group]
        versions.append(base if place == 0 else _version(model, person, number, base=base))
    now = timezone.now()
    releases = Release.objects.bulk_create(
        Release(
            version=version,
            department=department,
            environment="production",
            deployment_name=f"fleet-{number}",
            purpose="Simulate",
            dossier={},
            dossier_digest="d" * 64,
            submitted_by=person,
            state="approved",
            approved_at=now,
            expires_at=now + timedelta(days=1),
        )
        for number, version in enumerate(versions, first)
    )
    return Deployment.objects.bulk_create(
        Deployment(
            name=release.deployment_name,
            release=release,
            department=department,
            created_by=person,
            message=WAITS,
            replicas_min=replicas,
            replicas_max=replicas,
            replicas_wanted=replicas,
        )
        for release in releases
    )


def _version(
    model: Model, person: Person, number: int, *, size: int = 0, base: ModelVersion | None = None
) -> ModelVersion:
    return ModelVersion.objects.create(
        model=model,
        number=number if base is None else 1_000_000 + number,
        kind="base" if base is None else "adapter",
        base=base,
        digest=f"{number if base is None else 1_000_000 + number:064x}",
        manifest={},
        size_bytes=size or 50_000_000,
        created_by=person,
    )


def assign_everything(worker: str) -> None:
    """Assign every live deployment to one worker, as the controller does where it is alone."""
    Placement.objects.bulk_create(
        (
            Placement(deployment_id=pk, worker=worker, since=timezone.now())
            for pk in Deployment.objects.filter(state__in=LIVE).values_list("pk", flat=True)
        ),
        ignore_conflicts=True,
    )


def loads_all() -> None:
    """Have workers load what they are assigned."""
    now = timezone.now()
    Replica.objects.exclude(
        pk__in=Replica.objects.filter(deployment__placements__isnull=False).values("pk")
    ).delete()
    Replica.objects.bulk_create(
        (
            Replica(deployment_id=pk, worker=worker, state=ReplicaState.READY, heartbeat_at=now)
            for pk, worker in Placement.objects.values_list("deployment_id", "worker")
        ),
        ignore_conflicts=True,
    )
