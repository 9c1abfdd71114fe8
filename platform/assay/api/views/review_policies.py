"""Review policies: the requirements of each tier, and their changes."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from assay.api.representations.common import PersonReference
from assay.api.routes import Routes
from governance.principals import Principal
from governance.reviews.policies.lifecycle import (
    review_policy_decide,
    review_policy_draft,
    review_policy_propose,
    review_policy_revise,
    review_policy_withdraw,
)
from governance.reviews.policies.models import ReviewPolicy
from governance.reviews.policies.schemas import (
    ReviewPolicyChange,
    ReviewPolicyDecision,
    ReviewPolicyFilter,
    ReviewPolicyReason,
    ReviewPolicyText,
)
from governance.reviews.policies.selectors import (
    policy_document,
    review_policies_visible_to,
    review_policy_get,
)


class ReviewPolicyAnswer(serializers.Serializer[Any]):
    """One version of a review policy. `based_on` is the version in force when it was drafted."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    version = serializers.IntegerField()
    state = serializers.CharField()
    title = serializers.SerializerMethodField()
    digest = serializers.CharField()
    based_on = serializers.IntegerField(allow_null=True)
    created_by = PersonReference(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    proposed_by = PersonReference(allow_null=True)
    proposed_at = serializers.DateTimeField(allow_null=True)
    decided_by = PersonReference(allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    decision_note = serializers.CharField()

    def get_title(self, policy: Any) -> str:
        return policy_document(policy).title


class ReviewPolicyDetail(ReviewPolicyAnswer):
    """A version with its content: `text` is the YAML with the SHA-256 `digest`, and `document` the
    same as data. `authors` are the IDs of the people who edited it.
    """

    text = serializers.CharField()
    document = serializers.SerializerMethodField()
    authors = serializers.ListField(child=serializers.IntegerField())

    def get_document(self, policy: Any) -> dict[str, Any]:
        return policy_document(policy).model_dump(mode="json", by_alias=True)


routes = Routes("Review policies", ReviewPolicyDetail)


@routes.list("review-policies", "List review policies", answer=ReviewPolicyAnswer)
def list_review_policies(actor: Principal, query: ReviewPolicyFilter) -> QuerySet[ReviewPolicy]:
    return query.applied(review_policies_visible_to(actor))


@routes.post("review-policies", "Draft a version of a review policy", status=201, judged=True)
def draft(actor: Principal, body: ReviewPolicyText) -> ReviewPolicy:
    policy = review_policy_draft(actor=actor, text=body.text)
    return review_policy_get(actor=actor, id=policy.pk)


@routes.get(
    "review-policies/<id:review_policy_id>", "One version of a review policy, with its text"
)
def show(actor: Principal, review_policy_id: int) -> ReviewPolicy:
    return review_policy_get(actor=actor, id=review_policy_id)


@routes.patch("review-policies/<id:review_policy_id>", "Change a draft", judged=True)
def revise(actor: Principal, review_policy_id: int, body: ReviewPolicyChange) -> ReviewPolicy:
    review_policy_revise(
        actor=actor, policy_id=review_policy_id, text=body.text, expected=body.digest
    )
    return review_policy_get(actor=actor, id=review_policy_id)


@routes.post("review-policies/<id:review_policy_id>/propose", "Propose a draft, which freezes it")
def propose(actor: Principal, review_policy_id: int) -> ReviewPolicy:
    review_policy_propose(actor=actor, policy_id=review_policy_id)
    return review_policy_get(actor=actor, id=review_policy_id)


@routes.post(
    "review-policies/<id:review_policy_id>/decide",
    "Approve a proposal, which puts it in force at once, or reject it",
)
def decide(actor: Principal, review_policy_id: int, body: ReviewPolicyDecision) -> ReviewPolicy:
    review_policy_decide(actor=actor, policy_id=review_policy_id, **dict(body))
    return review_policy_get(actor=actor, id=review_policy_id)


@routes.post("review-policies/<id:review_policy_id>/withdraw", "Withdraw a draft or a proposal")
def withdraw(actor: Principal, review_policy_id: int, body: ReviewPolicyReason) -> ReviewPolicy:
    review_policy_withdraw(actor=actor, policy_id=review_policy_id, reason=body.reason)
    return review_policy_get(actor=actor, id=review_policy_id)
