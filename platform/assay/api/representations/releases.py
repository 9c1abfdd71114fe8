"""Releases, their dossiers, reviews and decisions."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import Link, PersonReference, slug
from assay.api.representations.conditions import (
    CarriedAnswer,
    ConditionsAnswer,
    ValidityAnswer,
)
from assay.api.representations.registry import VersionReference


class ReleaseAnswer(ValidityAnswer):
    """The request to run one version in one environment, without its dossier and review."""

    id = serializers.IntegerField()
    state = serializers.CharField()
    version = VersionReference()
    model = serializers.CharField(source="version.model.name")
    department = slug()
    environment = serializers.CharField()
    deployment_name = serializers.CharField()
    departments = serializers.SerializerMethodField()
    visibility = serializers.CharField()
    purpose = serializers.CharField()
    tier = serializers.CharField()
    engine = serializers.CharField(help_text="`own`, `llama.cpp`, `vllm` or `hosted`.")
    precision = serializers.CharField(help_text="`stored`: as the weights are stored.")
    dossier_digest = serializers.CharField()
    submitted_by = PersonReference()
    created_at = serializers.DateTimeField()
    renews = serializers.IntegerField(
        source="renews_id", allow_null=True, help_text="The release that this one renews."
    )
    voided_because = serializers.CharField(
        help_text="The change in the content of the dossier; empty unless the state is `voided`."
    )
    url = Link("releases/{0.id}")
    dossier_url = Link("releases/{0.id}/dossier")

    def get_departments(self, release: Any) -> list[str]:
        return [department.slug for department in release.departments.all()]


class ReleaseDraftAnswer(serializers.Serializer[Any]):
    """A request for a release that is not submitted yet. It is not reviewed and permits nothing."""

    id = serializers.IntegerField()
    version = VersionReference()
    version_state = serializers.CharField(
        source="version.state", help_text="Only a draft of a trusted version can be submitted."
    )
    model = serializers.CharField(source="version.model.name")
    department = slug()
    content = serializers.JSONField(help_text="The request's fields, in the form for submission.")
    revision = serializers.IntegerField()
    job = serializers.UUIDField(
        source="job_id", allow_null=True, help_text="The last job of the chain that created it."
    )
    created_by = PersonReference()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    url = Link("release-drafts/{0.id}")


class DecisionAnswer(serializers.Serializer[Any]):
    """A person's decision or comment on one digest."""

    id = serializers.IntegerField()
    verdict = serializers.CharField()
    specialty = serializers.CharField()
    reason = serializers.CharField()
    conditions = ConditionsAnswer()
    digest = serializers.CharField()
    round = serializers.IntegerField()
    person = PersonReference()
    in_place_of = PersonReference(
        allow_null=True, help_text="The absent reviewer whose deputy the person voted as."
    )
    proof_method = serializers.CharField(
        help_text="The second factor by which the voter verified their identity: `webauthn`, "
        "`totp` or `recovery_codes`; `local` in the demonstration; empty for a comment."
    )
    proved_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class WaiverAnswer(serializers.Serializer[Any]):
    """A temporary waiver of one checklist item. `excused` is the finding of its check when the
    waiver was requested. It counts only while `state` is `granted` and before `expires_at`."""

    id = serializers.IntegerField()
    state = serializers.CharField()
    reason = serializers.CharField()
    excused = serializers.CharField()
    digest = serializers.CharField()
    round = serializers.IntegerField()
    expires_at = serializers.DateTimeField()
    asked_by = PersonReference()
    asked_at = serializers.DateTimeField()
    decided_by = PersonReference(allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    decision_reason = serializers.CharField()
    ended_by = PersonReference(allow_null=True, help_text="Null for the platform itself.")
    ended_at = serializers.DateTimeField(allow_null=True)
    end_reason = serializers.CharField()


class ChecklistItemAnswer(serializers.Serializer[Any]):
    """One requirement for approval. `digest` is that of the dossier on which it was checked or
    attested."""

    code = serializers.CharField()
    title = serializers.CharField()
    why = serializers.CharField()
    automatic = serializers.BooleanField()
    waivable = serializers.BooleanField()
    state = serializers.CharField()
    note = serializers.CharField()
    digest = serializers.CharField()
    checked_at = serializers.DateTimeField(allow_null=True)
    attested_by = PersonReference(allow_null=True)
    attested_at = serializers.DateTimeField(allow_null=True)
    carried_from = CarriedAnswer(allow_null=True)
    waivers = WaiverAnswer(many=True)


class StandingAnswer(serializers.Serializer[Any]):
    """Approvals by specialty: what is required, given in this round, and still missing."""

    required = serializers.DictField(  # type: ignore[assignment]  # DRF takes it out of the class
        child=serializers.IntegerField()
    )
    given = serializers.DictField(child=serializers.IntegerField())
    missing = serializers.DictField(child=serializers.IntegerField())
    blocking = serializers.ListField(
        child=serializers.CharField(), help_text="Codes of the checklist items not yet met."
    )
    unresolved = serializers.ListField(
        child=serializers.IntegerField(), help_text="IDs of open threads that block the approval."
    )


class ReviewPolicyReference(serializers.Serializer[Any]):
    """The version of the review policy that applies to a review."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    version = serializers.IntegerField()
    digest = serializers.CharField()


class ReviewAnswer(serializers.Serializer[Any]):
    """A review, without its decisions."""

    id = serializers.IntegerField()
    subject_type = serializers.CharField()
    subject_id = serializers.CharField()
    subject_name = serializers.CharField()
    department = slug()
    tier = serializers.CharField()
    digest = serializers.CharField()
    round = serializers.IntegerField()
    state = serializers.CharField()
    required_approvals = serializers.DictField(child=serializers.IntegerField())
    policy_version = serializers.IntegerField()
    review_policy = ReviewPolicyReference(allow_null=True)
    opened_by = PersonReference()
    opened_at = serializers.DateTimeField()
    due_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)
    assignees = PersonReference(many=True)


class ReviewDetail(ReviewAnswer):
    """A review for the caller. `why_not` has, per verdict, the reason why the caller cannot give
    it; it is empty if they can."""

    standing = StandingAnswer()
    checklist = ChecklistItemAnswer(many=True)
    decisions = DecisionAnswer(many=True)
    why_not = serializers.DictField(child=serializers.CharField(allow_blank=True))


class PackageAnswer(serializers.Serializer[Any]):
    """A package that provides the task, or that such a package needs. `digest` covers its files."""

    name = serializers.CharField()
    version = serializers.CharField()
    digest = serializers.CharField()
    file_count = serializers.IntegerField()


class TaskCodeAnswer(serializers.Serializer[Any]):
    """The code of the task in the dossier; Assay's own tasks have no packages. `difference`
    describes how the code of this process differs; the release then does not serve."""

    digest = serializers.CharField()
    packages = PackageAnswer(many=True)
    difference = serializers.CharField()


class UpgradeAnswer(serializers.Serializer[Any]):
    """Comparison of the dossier's answers with those of a worker that has different software.
    `outcome` is `passed` or `differs`, or `first` or `unverified` if there are no answers to
    compare with; `standing` is `accepted` or `refused`, by the review policy. `used`: a worker has
    this software now."""

    outcome = serializers.CharField(source="check.outcome")
    standing = serializers.CharField()
    words = serializers.CharField()
    versions = serializers.DictField(
        source="check.environment.versions", child=serializers.CharField()
    )
    rows = serializers.IntegerField(source="check.rows")
    differing = serializers.JSONField(source="check.differing")
    worker = serializers.CharField(source="check.worker")
    checked_at = serializers.DateTimeField(source="check.checked_at")
    used = serializers.BooleanField()


class ReleaseDetail(ReleaseAnswer):
    """A release with its risk answers, the fields of its dossier, the code of its task, results
    after upgrades, and its review; `review` is null before it is opened."""

    risk_answers = serializers.JSONField()
    dossier_fields = serializers.JSONField()
    renewals = serializers.ListField(
        source="renewed_as",
        child=serializers.IntegerField(),
        help_text="Releases that renew this one.",
    )
    code = TaskCodeAnswer()
    upgrades = UpgradeAnswer(many=True)
    review = ReviewDetail(allow_null=True)


class DossierAnswer(serializers.Serializer[Any]):
    """The dossier that reviewers decide on. `digest` is the SHA-256 of `dossier` in
    canonical JSON.
    """

    digest = serializers.CharField()
    dossier = serializers.JSONField()
