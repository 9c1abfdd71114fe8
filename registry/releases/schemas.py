"""Input about releases and their reviews."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, NAME_MAX, TIER_MAX
from governance.people.models import Specialty
from governance.reviews.inbox import ReviewFilter
from governance.reviews.models import NOTE_MAX, REASON_MAX, Verdict
from governance.schemas import Choice, Filter, Id, Line, Moment, Paragraphs, Schema, Slug
from registry.catalog.engines import EngineName
from registry.releases.conditions import OBLIGATION_MAX, OBLIGATIONS_MAX, RATE_MAX
from registry.releases.dossier_fields import DossierSections
from registry.releases.engines import Precision
from registry.releases.models import (
    DEPARTMENTS_MAX,
    PURPOSE_MAX,
    WITHDRAW_REASON_MAX,
    Environment,
    ReleaseState,
    Visibility,
)

DepartmentSlug = Annotated[Slug, Field(max_length=DEPARTMENT_MAX)]
Departments = Annotated[list[DepartmentSlug], Field(min_length=1, max_length=DEPARTMENTS_MAX)]
Rate = Annotated[int, Field(ge=1, le=RATE_MAX)]


class ReleaseFilter(Filter):
    """Filters of the list."""

    state: ReleaseState | None = None
    environment: Environment | None = None
    deployment_name: Line | None = Field(default=None, max_length=NAME_MAX)


class NewRelease(Schema):
    """Version, environment, name, departments, purpose and risk of a release."""

    version: Id
    environment: Choice[Environment]
    deployment_name: Slug = Field(max_length=NAME_MAX)
    departments: Departments
    visibility: Choice[Visibility] = Visibility.DEPARTMENT
    purpose: Paragraphs = Field(max_length=PURPOSE_MAX)
    risk_answers: dict[str, Any] = Field(default={})
    dossier_fields: DossierSections | None = None
    tier: Slug = Field(default="limited", max_length=TIER_MAX)
    engine: Choice[EngineName] | None = None
    precision: Choice[Precision] | None = None


class Renewal(Schema):
    """Fields that differ from the release that is submitted again."""

    departments: Departments | None = None
    visibility: Choice[Visibility] | None = None
    purpose: Paragraphs | None = Field(default=None, max_length=PURPOSE_MAX)
    risk_answers: dict[str, Any] | None = None
    dossier_fields: DossierSections | None = None
    tier: Line | None = Field(default=None, max_length=TIER_MAX)


class ApprovalConditions(Schema):
    """Conditions of an approval: departments, end, request rate, and obligations. With
    `shadow_only`, the release gets copies of requests, and its answers reach no client. With
    `reviewers_read_content`, reviewers for compliance may read logged content of its
    department's requests. With `suspend_on_difference`, for hosted versions, an answer that states
    another model or fingerprint suspends it."""

    departments: Departments | None = None
    until: Moment | None = None
    requests_per_minute: Rate | None = None
    requests_per_minute_of: dict[str, Rate] | None = Field(default=None, max_length=DEPARTMENTS_MAX)
    obligations: list[Annotated[Paragraphs, Field(max_length=OBLIGATION_MAX)]] | None = Field(
        default=None, max_length=OBLIGATIONS_MAX
    )
    shadow_only: bool | None = None
    reviewers_read_content: bool | None = None
    suspend_on_difference: bool | None = None


class ReleaseDecision(Schema):
    """Decision on the dossier with this digest. `conditions` go with an approval. Drafts of
    comments in the review's threads are submitted with it, unless `submit_drafts` is false."""

    verdict: Choice[Verdict]
    reason: Paragraphs = Field(max_length=REASON_MAX)
    digest: str = Field(min_length=64, max_length=64)
    specialty: Choice[Specialty] | None = None
    conditions: ApprovalConditions | None = None
    submit_drafts: bool = True


class ChangesAnswer(Schema):
    """The department's answer. Risk answers and dossier fields that are sent replace all earlier
    ones, and make a new dossier."""

    message: Paragraphs = Field(max_length=REASON_MAX)
    risk_answers: dict[str, Any] | None = None
    dossier_fields: DossierSections | None = None


class Attestation(Schema):
    """The reviewer's description of the check."""

    note: Paragraphs = Field(max_length=NOTE_MAX)


class ReleaseWithdrawal(Schema):
    """Reason for withdrawing a release."""

    reason: Paragraphs = Field(max_length=WITHDRAW_REASON_MAX)


class InboxFilter(ReviewFilter):
    """Filters of the list. `missing` is a specialty that still lacks an approval. `awaiting` keeps
    reviews that await the caller's vote, `assigned` those assigned to the caller. With
    `awaiting` or `due`, the list is sorted by due date."""

    awaiting: Literal["me"] | None = None


class ReadinessFilter(Filter):
    """Tier of the release; if omitted, the lowest one that the training data allows."""

    tier: Line | None = Field(default=None, max_length=TIER_MAX)
