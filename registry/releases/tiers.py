"""Tiers of releases; a tier is the name of a review policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from governance.errors import InvalidInput, NotFound, WrongState
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.models import Review
from governance.reviews.policies.selectors import (
    ActivePolicy,
    MinimumTier,
    minimum_tier_for,
    policy_document,
    review_policies_in_force,
)
from registry.versions.models import ModelVersion, VersionKind
from registry.versions.weights import weights_version


def risk_facts(version: ModelVersion, answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers with the facts about `version` that conditions of review policies use."""
    return {**answers, "hosted": weights_version(version).kind == VersionKind.HOSTED}


def minimum_tier_get(*, actor: Principal, answers: Mapping[str, Any]) -> MinimumTier:
    """Return the lowest tier that these answers allow now, and why.

    Raises:
        NotPermitted: the actor may not read review policies.
        WrongState: none is in force.
    """
    authorize(actor=actor, action=Action.POLICY_VIEW, resource=Resource("review_policy"))
    return minimum_tier_for(answers, review_policies_in_force())


def checked_tier(tier: str, answers: Mapping[str, Any]) -> ActivePolicy:
    """Return the review policy in force for `tier`, which the answers must allow.

    Raises:
        InvalidInput: the tier does not exist, or is too low.
        WrongState: no review policy is in force.
    """
    policies = review_policies_in_force()
    least = minimum_tier_for(answers, policies)
    chosen = {each.policy.name: each for each in policies}.get(tier)
    names = [each.policy.name for each in policies]
    if chosen is None:
        raise InvalidInput(
            f"There is no tier {str(tier)[:40]!r}.",
            hint=f"Choose one of {', '.join(names)}.",
            fields={"tier": [f"One of {', '.join(names)}."]},
        )
    if names.index(tier) < names.index(least.name):
        raise InvalidInput(
            f"The tier {tier} is too low: {least.why}, so it is at least {least.name}.",
            fields={"tier": [f"At least {least.name}."]},
        )
    return chosen


def policy_reference(in_force: ActivePolicy) -> dict[str, Any]:
    """Return a review policy as a dossier names it."""
    policy = in_force.policy
    return {"name": policy.name, "version": policy.version, "digest": policy.digest}


def policy_of(review: Review) -> ActivePolicy:
    """Return the review policy that a release's `review` opened under.

    Raises:
        NotFound: it has none; reviews of other subjects may lack one.
    """
    if review.review_policy is None:
        raise NotFound(f"Review {review.pk} has no review policy.")
    return ActivePolicy(review.review_policy, policy_document(review.review_policy))


def check_same_approvals(review: Review, policy: ActivePolicy, answers: Mapping[str, Any]) -> None:
    """Raise WrongState if these answers require approvals that `review` did not open with."""
    required = policy.document.required_approvals(answers)
    more = sorted(
        name for name, count in required.items() if count > review.required_approvals.get(name, 0)
    )
    if more:
        raise WrongState(
            f"With these answers review {review.pk} of {review.subject_name} needs approval for "
            f"{' and '.join(more)}, which it did not open with.",
            hint="Withdraw the release and submit it again with these answers.",
        )
