"""Releases as they stand after a review, for the tests of deployments."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from governance.people.models import Person
from governance.reviews.policies.selectors import review_policies_in_force
from registry.canonical import json_digest
from registry.releases.dossier import dossier_build
from registry.releases.models import Release, ReleaseState
from registry.releases.tiers import policy_reference
from registry.versions.models import ModelVersion
from tests.approvals import approve
from tests.unit.workers import company


def dossier_of(version: ModelVersion, **changes: Any) -> dict[str, Any]:
    """Return the dossier of a release of `version` for its own department."""
    policy = next(each for each in review_policies_in_force() if each.policy.name == "limited")
    return dossier_build(
        version,
        **{
            "department": version.model.department,
            "environment": "production",
            "deployment_name": "docs",
            "departments": [version.model.department],
            "visibility": "department",
            "purpose": "Answer",
            "risk_answers": {},
            "tier": "limited",
            "policy_version": 1,
            "submitted_by": 1,
            "fields": {},
            "review_policy": policy_reference(policy),
            "engine": "own",
            "precision": "stored",
            "after_upgrade": "suspend",
        }
        | changes,
    )


def release(
    version: ModelVersion,
    name: str = "docs",
    state: str = ReleaseState.APPROVED,
    hours: float = 24,
    grace_days: int = 0,
    engine: str = "own",
    precision: str = "stored",
    after_upgrade: str = "suspend",
    conditions: dict[str, Any] | None = None,
    environment: str = "production",
) -> Release:
    """A release of `version` that ends in `hours`, with the dossier that it was decided on."""
    owner = version.model.department
    person, _ = Person.objects.get_or_create(email="maker@example.org", defaults={"name": "Maker"})
    dossier = dossier_of(
        version,
        deployment_name=name,
        environment=environment,
        submitted_by=person.pk,
        engine=engine,
        precision=precision,
        after_upgrade=after_upgrade,
    )
    now = timezone.now()
    made = Release.objects.create(
        version=version,
        department=owner,
        environment=environment,
        deployment_name=name,
        purpose="Answer",
        state=state,
        dossier=dossier,
        dossier_digest=json_digest(dossier),
        submitted_by=person,
        approved_at=now,
        expires_at=now + timedelta(hours=hours),
        grace_days=grace_days,
        engine=engine,
        precision=precision,
        conditions=conditions or {},
    )
    made.departments.set([owner])
    if state == ReleaseState.APPROVED:
        approve(made)
    return made


def adapter(content: bytes = b"adapter", where: str = "clinical") -> ModelVersion:
    """An adapter on a base, both with their files in the store."""
    smol = company.model("smol", "text-generation", where)
    base = smol.versions.first() or company.version(smol)
    return company.version(
        company.model(f"docs-{where}", "text-generation", where),
        "adapter",
        base=base,
        files={"adapter_config.json": b"{}", "weights.bin": content},
    )
