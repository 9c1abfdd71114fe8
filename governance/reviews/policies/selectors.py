"""Selectors for review policies: those in force, their content, and the minimum tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from governance.errors import NotFound, WrongState
from governance.permissions import Action
from governance.policy.context import probing_context
from governance.policy.engine import Resource, decide
from governance.policy.models import PolicyState
from governance.policy.selectors import visible_to
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.reviews.policies.document import ReviewPolicyDocument, document_parsed
from governance.reviews.policies.models import ReviewPolicy


@dataclass(frozen=True, slots=True)
class ActivePolicy:
    """A policy that is in force for new reviews, and its content."""

    policy: ReviewPolicy
    document: ReviewPolicyDocument


@dataclass(frozen=True, slots=True)
class MinimumTier:
    """Minimum tier for some answers, and the reason; without one, it is the lowest tier."""

    name: str
    title: str
    why: str


def policy_document(policy: ReviewPolicy) -> ReviewPolicyDocument:
    """Return the policy's content, which was checked when it was written."""
    return document_parsed(policy.text)


def review_policy_in_force(name: str) -> ReviewPolicy | None:
    """Return the version of the policy that is in force for new reviews; None if none is."""
    return ReviewPolicy.objects.filter(name=name, state=PolicyState.ACTIVE).first()


def review_policies_in_force() -> list[ActivePolicy]:
    """Return the policies in force, the lowest rank first."""
    active = ReviewPolicy.objects.filter(state=PolicyState.ACTIVE).select_related(
        "created_by", "proposed_by", "decided_by"
    )
    rows = [ActivePolicy(policy, policy_document(policy)) for policy in active]
    return sorted(rows, key=lambda each: each.document.rank)


def minimum_tier_for(answers: Mapping[str, Any], policies: list[ActivePolicy]) -> MinimumTier:
    """Return the policy with the highest rank of those that apply to these answers.

    Raises:
        WrongState: there are no policies.
    """
    if not policies:
        raise WrongState(
            "No review policy is in force, so reviews cannot be opened.",
            code="review_policy_missing",
            hint="Run `manage.py bootstrap`.",
        )
    for each in reversed(policies):
        if why := each.document.reason(answers):
            return MinimumTier(each.document.name, each.document.title, why)
    return MinimumTier(policies[0].document.name, policies[0].document.title, "")


def review_policies_visible_to(actor: Principal) -> QuerySet[ReviewPolicy]:
    """Return review policies, newest first: those that are or were in force, and all others if the
    actor may draft or decide on them.
    """
    rows = visible_to(
        actor, Action.POLICY_VIEW, ReviewPolicy.objects.all(), resource_type="review_policy"
    ).select_related("created_by", "proposed_by", "decided_by")
    snapshot, anything = active_policy(), Resource("review_policy")
    insider_actions = (Action.POLICY_DRAFT, Action.POLICY_DECIDE)
    if any(
        decide(snapshot, actor, action, anything, probing_context(action)).allowed
        for action in insider_actions
    ):
        return rows
    return rows.filter(state__in=(PolicyState.ACTIVE, PolicyState.SUPERSEDED))


def review_policy_get(*, actor: Principal, id: int) -> ReviewPolicy:  # noqa: A002
    """Return the policy. Raises NotFound if it does not exist, or the actor may not see it."""
    policy = review_policies_visible_to(actor).filter(pk=id).first()
    if policy is None:
        raise NotFound(f"Review policy {id} does not exist, or you may not see it.")
    return policy
