"""A fleet of engine workers and deployments as rows, for the simulation of a fleet and its tests.

Releases have no dossiers, so that nothing of it may serve: placement does not ask. `approve_all`
approves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.utils import timezone

from governance.people.models import Department, Person
from governance.policy.services import policy_bootstrap
from governance.reviews.models import Decision, Review, ReviewState
from governance.reviews.policies.selectors import review_policy_in_force
from governance.reviews.policies.shipping import review_policies_bootstrap
from registry.canonical import json_digest
from registry.manifests import Manifest, ManifestFile
from registry.releases.models import Release
from registry.versions.models import Model, ModelVersion
from tests.approvals import dossier_of
from tests.proofs import vote_proof
from workers.deployments.leases import lease_end
from workers.deployments.models import (
    Deployment,
    Replica,
    ReplicaState,
    ServingLease,
    WorkerKey,
)
from workers.deployments.states import LIVE
from workers.placement.models import Placement
from workers.placement.planning import WAITS

GB = 10**9
# Of so many deployments one is a base, serving by itself; the others are its adapters.
PER_BASE = 5
# Numbers of the versions that are adapters begin here.
_ADAPTERS = 1_000_000
_BATCH = 500


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
    groups = sorted({number // PER_BASE for number in range(first, first + count)})
    bases = dict(
        zip(
            groups,
            ModelVersion.objects.bulk_create(
                [_version(model, person, group, size=(2 + group % 13) * GB) for group in groups],
                batch_size=_BATCH,
            ),
            strict=True,
        )
    )
    adapters = {
        each.number - _ADAPTERS: each
        for each in ModelVersion.objects.bulk_create(
            [
                _version(model, person, number, base=bases[number // PER_BASE])
                for number in range(first, first + count)
                if number % PER_BASE
            ],
            batch_size=_BATCH,
        )
    }
    versions = [
        adapters.get(number) or bases[number // PER_BASE] for number in range(first, first + count)
    ]
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
    number = number if base is None else _ADAPTERS + number
    size = size or 50_000_000
    manifest = Manifest(
        (ManifestFile("weights.safetensors", size, f"{number:064x}"),),
        None if base is None else base.digest,
    )
    return ModelVersion(
        model=model,
        number=number,
        kind="base" if base is None else "adapter",
        base=base,
        digest=manifest.digest,
        manifest=manifest.to_json(),
        size_bytes=size,
        created_by=person,
    )


def approve_all(deployments: Sequence[Deployment]) -> None:
    """Let deployments serve, as far as the one rule is concerned: give each release its dossier
    and a review that approved it, and each deployment a lease."""
    policy_bootstrap()
    review_policies_bootstrap()
    reviewer, _ = Person.objects.get_or_create(email="vera@example.org", defaults={"name": "Vera"})
    releases = [each.release for each in deployments]
    for release in releases:
        release.dossier = dossier_of(release, [])
        release.dossier_digest = json_digest(release.dossier)
    Release.objects.bulk_update(releases, ["dossier", "dossier_digest"], batch_size=_BATCH)
    policy, now = review_policy_in_force("limited"), timezone.now()
    reviews = Review.objects.bulk_create(
        (
            Review(
                subject_type="release",
                subject_id=str(release.pk),
                subject_name=str(release),
                department=release.department,
                digest=release.dossier_digest,
                opened_by=release.submitted_by,
                state=ReviewState.APPROVED,
                required_approvals={"compliance": 1},
                policy_version=1,
                review_policy=policy,
                due_at=now,
            )
            for release in releases
        ),
        batch_size=_BATCH,
    )
    Decision.objects.bulk_create(
        (
            Decision(
                review=review,
                submitter=review.opened_by,
                person=reviewer,
                verdict="approve",
                specialty="compliance",
                reason="Fine.",
                digest=review.digest,
                round=1,
                conditions=release.conditions,
                **vote_proof(),
            )
            for review, release in zip(reviews, releases, strict=True)
        ),
        batch_size=_BATCH,
    )
    ServingLease.objects.bulk_create(
        (ServingLease(deployment=each, servable_until=lease_end()) for each in deployments),
        batch_size=_BATCH,
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
