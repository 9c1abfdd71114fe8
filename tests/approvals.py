"""Releases as the one rule wants them, without the way through a review, for tests of serving."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from governance.people.models import Person
from governance.reviews.models import Decision, Review
from registry.canonical import json_digest
from registry.catalog import task_code
from registry.releases.models import Release
from registry.releases.software import code_section
from tests.proofs import vote_proof


def give_dossier(release: Release) -> None:
    """The least dossier that the one rule reads, of the row as it is."""
    task = release.version.model.task
    release.dossier = {
        "identity": {"digest": release.version.digest},
        "release": {
            "environment": release.environment,
            "deployment_name": release.deployment_name,
            "departments": sorted(each.slug for each in release.departments.all()),
            "visibility": release.visibility,
        },
        # An unavailable task has no code here.
        **({"software": {"code": code_section(task)}} if task_code(task) else {}),
        "serving": {"engine": release.engine, "precision": release.precision},
    }
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
