"""Preconditions of submitting a release."""

from __future__ import annotations

from governance.errors import InvalidInput, WrongState
from governance.reviews.policies.document import ReviewPolicyDocument
from governance.reviews.policies.selectors import ActivePolicy
from registry.catalog import TASKS
from registry.releases.models import ReleaseState
from registry.releases.serving import check_trusted
from registry.versions.hosted import can_be_evaluated, check_provider_runs, hosted_of
from registry.versions.models import ModelVersion

UNDER_REVIEW = (ReleaseState.IN_REVIEW, ReleaseState.CHANGES_REQUESTED)


def check_submittable(
    version: ModelVersion, environment: str, deployment_name: str, policy: ActivePolicy
) -> None:
    """Check that a release of `version` may be submitted for this place.

    Raises:
        InvalidInput: the tier requires an evaluation, and it has none.
        WrongState: the version is recalled, under review for this place already, or its provider
            has ended the model.
        ManifestMismatch: the description of a hosted version does not have its digest.
    """
    check_trusted(version, "released")
    check_provider_runs(hosted_of(version))
    under_review = version.releases.filter(
        environment=environment, deployment_name=deployment_name, state__in=UNDER_REVIEW
    ).first()
    if under_review is not None:
        raise WrongState(
            f"Release {under_review.pk} of {version} as {deployment_name} is "
            f"{under_review.get_state_display().lower()}; a second request was not made.",
            hint="Answer it or withdraw it.",
        )
    if lacks_evaluation(version, policy.document):
        raise InvalidInput(
            f"{version} was never evaluated; the tier {policy.policy.name} requires that.",
            hint="Evaluate it on held-out data first.",
            fields={"version": ["Has no evaluation."]},
        )


def lacks_evaluation(version: ModelVersion, policy: ReviewPolicyDocument) -> bool:
    """Return true if the tier requires an evaluation, the version can be evaluated, and no
    evaluation exists. A version of an unavailable task counts as one that can be evaluated."""
    entry = TASKS.get(version.model.task)
    evaluable = entry is None or can_be_evaluated(version, entry)
    return bool(evaluable and policy.gates.held_out and not version.evaluations.exists())
