"""Releases as the one rule wants them, without the way through a review, for tests of serving."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from governance.people.models import Person
from governance.reviews.models import Decision, Review
from governance.reviews.policies.selectors import review_policy_in_force
from registry.canonical import json_digest
from registry.catalog import task_code
from registry.catalog.code import NO_PACKAGES
from registry.releases.models import Release
from registry.releases.software import code_section
from tests.proofs import vote_proof


def software_of(task: str) -> dict[str, Any]:
    """The section of a dossier on software, with nothing to compare with after an upgrade."""
    # An unavailable task has no code here.
    none = {"digest": NO_PACKAGES.digest, "packages": []}
    return {
        "assay": "1.0.0",
        "code": code_section(task) if task_code(task) else none,
        "serves_with": [],
        "equivalence": {"policy": "alarm", "rows": 0, "because": "It was not evaluated."},
    }


def dossier_of(release: Release, departments: list[str]) -> dict[str, Any]:
    """The least dossier that the one rule reads, of the row as it is."""
    return {
        "identity": {"digest": release.version.digest},
        "release": {
            "environment": release.environment,
            "deployment_name": release.deployment_name,
            "departments": sorted(departments),
            "visibility": release.visibility,
        },
        "software": software_of(release.version.model.task),
        "serving": {"engine": release.engine, "precision": release.precision},
    }


def give_dossier(release: Release) -> None:
    """Write the dossier of `dossier_of`, and its digest."""
    release.dossier = dossier_of(release, [each.slug for each in release.departments.all()])
    release.dossier_digest = json_digest(release.dossier)
    Release.objects.filter(pk=release.pk).update(
        dossier=release.dossier, dossier_digest=release.dossier_digest
    )


def approve(release: Release, **review: Any) -> Review:
    """The review that approved it, with its one vote, on the conditions of the row."""
    made = Review.objects.create(
        subject_type="release",
        subject_id=str(release.pk),
        subject_name=str(release),
        department=release.department,
        digest=release.dossier_digest,
        opened_by=release.submitted_by,
        **{
            "required_approvals": {"compliance": 1},
            "policy_version": 1,
            "review_policy": review_policy_in_force("limited"),
            "due_at": timezone.now(),
            **review,
        },
    )
    reviewer, _ = Person.objects.get_or_create(email="vera@example.org", defaults={"name": "Vera"})
    Decision.objects.create(
        review=made,
        submitter=made.opened_by,
        person=reviewer,
        verdict="approve",
        specialty="compliance",
        reason="Fine.",
        digest=made.digest,
        round=1,
        conditions=release.conditions,
        **vote_proof(),
    )
    Review.objects.filter(pk=made.pk).update(state="approved")
    return made
