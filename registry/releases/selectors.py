"""Reads of releases."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import (
    Case,
    DateTimeField,
    DurationField,
    ExpressionWrapper,
    F,
    QuerySet,
    Value,
    When,
)
from django.db.models.expressions import CombinedExpression

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from governance.reviews.models import Review
from governance.reviews.waivers.selectors import checklist_prefetch
from registry.releases.models import Release, ReleaseState
from registry.versions.models import ModelVersion


def serves_until(path: str = "") -> ExpressionWrapper[CombinedExpression]:
    """Return `Release.serves_until` in SQL, for the release at the end of `path` ("release__"). It
    ignores `until` in conditions, since the approval itself ends then, without grace.
    """
    grace = ExpressionWrapper(
        F(f"{path}grace_days") * Value(timedelta(days=1)), output_field=DurationField()
    )
    return ExpressionWrapper(F(f"{path}expires_at") + grace, output_field=DateTimeField())


def releases_visible_to(actor: Principal) -> QuerySet[Release]:
    """Return releases that `actor` may see, with the relations that lists show."""
    rows = Release.objects.select_related(
        "version__model__department", "department", "submitted_by"
    ).prefetch_related("departments")
    return visible_to(actor, Action.RELEASE_VIEW, rows, resource_type="release")


def release_get(*, actor: Principal, id: int) -> Release:  # noqa: A002
    """Return a release; raise NotFound if it does not exist or `actor` may not see it."""
    release = releases_visible_to(actor).filter(pk=id).first()
    if release is None:
        raise NotFound(f"Release {id} does not exist, or you may not see it.")
    return release


def release_to_repeat(actor: Principal, version: ModelVersion) -> int | None:
    """Return the ID of the newest approved release of another version of the model, which a request
    for this version may repeat; None if there is none that `actor` may see."""
    rows = releases_visible_to(actor).filter(
        version__model=version.model_id, state=ReleaseState.APPROVED
    )
    others = rows.exclude(version=version.pk).prefetch_related(None)
    return others.order_by("-pk").values_list("pk", flat=True).first()


def releases_to_copy(actor: Principal, version: ModelVersion) -> QuerySet[Release]:
    """Return the visible releases of the version's department, for copying their answers: first
    those of its model, then the newest."""
    rows = releases_visible_to(actor).filter(department=version.model.department_id)
    other_model = Case(When(version__model=version.model_id, then=0), default=1)
    return rows.prefetch_related(None).order_by(other_model, "-pk")


def release_reviews(release: Release) -> QuerySet[Review]:
    """Return every review of `release`, newest first."""
    rows = Review.objects.filter(subject_type="release", subject_id=str(release.pk))
    return rows.order_by("-pk")


def release_review(release: Release) -> Review | None:
    """Return the newest review of `release`, with its decisions and checklist."""
    return (
        release_reviews(release)
        .select_related("department", "opened_by", "review_policy")
        .prefetch_related("decisions__person", "decisions__in_place_of", checklist_prefetch())
        .first()
    )
