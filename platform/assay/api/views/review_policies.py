"""Review policies: what each tier asks for, and how that changes."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Paragraphs, Slug, StrictSerializer
from assay.api.representations.common import PersonReference
from governance.bounds import NOT_IN_TEXT, TIER_MAX
from governance.policy.models import DECISION_NOTE_MAX, PolicyState
from governance.reviews.policies.document import MAX_BYTES
from governance.reviews.policies.lifecycle import (
    review_policy_decide,
    review_policy_draft,
    review_policy_propose,
    review_policy_revise,
    review_policy_withdraw,
)
from governance.reviews.policies.models import ReviewPolicy
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
    """With what it says: `text` is the YAML that was decided on, whose SHA-256 is `digest`, and
    `document` the same as data. `authors` are the ids of the people who wrote on it.
    """

    text = serializers.CharField()
    document = serializers.SerializerMethodField()
    authors = serializers.ListField(child=serializers.IntegerField())

    def get_document(self, policy: Any) -> dict[str, Any]:
        return policy_document(policy).model_dump(mode="json", by_alias=True)


TAG = "Review policies"


class ReviewPolicyText(serializers.CharField):
    """YAML, as it stands in a file: nothing is trimmed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_BYTES, trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("Not a string.")
        value = super().to_internal_value(data)
        if NOT_IN_TEXT.search(value):
            raise serializers.ValidationError("Control characters are not allowed here.")
        return value


class ReviewPolicyQuery(StrictSerializer):
    """Filters of the list."""

    name = Slug(max_length=TIER_MAX, required=False)
    state = Choice(choices=PolicyState.choices, required=False)


class ReviewPolicyBody(StrictSerializer):
    """The policy in YAML; its `name` says which policy it is a version of."""

    text = ReviewPolicyText()


class ReviewPolicyChange(ReviewPolicyBody):
    """With `digest`, only if the draft still has that one."""

    digest = serializers.RegexField("^[0-9a-f]{64}$", required=False)


class ReviewPolicyDecision(StrictSerializer):
    """The decision of a person who did not edit the policy."""

    verdict = Choice(choices=(("approve", "approve"), ("reject", "reject")))
    reason = Paragraphs(max_length=DECISION_NOTE_MAX)


class ReviewPolicyReason(StrictSerializer):
    """Why."""

    reason = Paragraphs(max_length=DECISION_NOTE_MAX, required=False, allow_blank=True)


class ReviewPoliciesView(Endpoint):
    """Review policies, newest first."""

    @operation(
        TAG,
        "List review policies",
        query=ReviewPolicyQuery,
        answer=ReviewPolicyAnswer,
        paged=True,
    )
    def get(self, request: Request) -> Response:
        given = self.query(ReviewPolicyQuery)
        return self.page(review_policies_visible_to(self.actor).filter(**given), ReviewPolicyAnswer)

    @operation(
        TAG,
        "Draft a version of a review policy",
        body=ReviewPolicyBody,
        answer=ReviewPolicyDetail,
        status=201,
    )
    def post(self, request: Request) -> Response:
        made = review_policy_draft(actor=self.actor, **self.body(ReviewPolicyBody))
        return self.answer(_shown(self, made.pk), ReviewPolicyDetail, status=201)


class ReviewPolicyView(Endpoint):
    """One version."""

    @operation(TAG, "One version of a review policy, with its text", answer=ReviewPolicyDetail)
    def get(self, request: Request, review_policy_id: int) -> Response:
        self.query()
        return self.answer(_shown(self, review_policy_id), ReviewPolicyDetail)

    @operation(TAG, "Change a draft", body=ReviewPolicyChange, answer=ReviewPolicyDetail)
    def patch(self, request: Request, review_policy_id: int) -> Response:
        given = self.body(ReviewPolicyChange)
        review_policy_revise(
            actor=self.actor,
            policy_id=review_policy_id,
            text=given["text"],
            expected=given.get("digest"),
        )
        return self.answer(_shown(self, review_policy_id), ReviewPolicyDetail)


class ReviewPolicyProposeView(Endpoint):
    """Ask for a decision."""

    @operation(TAG, "Propose a draft, which freezes it", answer=ReviewPolicyDetail)
    def post(self, request: Request, review_policy_id: int) -> Response:
        self.nothing()
        review_policy_propose(actor=self.actor, policy_id=review_policy_id)
        return self.answer(_shown(self, review_policy_id), ReviewPolicyDetail)


class ReviewPolicyDecideView(Endpoint):
    """A second person puts a version in force, or refuses it."""

    @operation(
        TAG,
        "Approve a proposal, which is in force at once, or reject it",
        body=ReviewPolicyDecision,
        answer=ReviewPolicyDetail,
    )
    def post(self, request: Request, review_policy_id: int) -> Response:
        given = self.body(ReviewPolicyDecision)
        review_policy_decide(actor=self.actor, policy_id=review_policy_id, **given)
        return self.answer(_shown(self, review_policy_id), ReviewPolicyDetail)


class ReviewPolicyWithdrawView(Endpoint):
    """An author takes a draft or a proposal back."""

    @operation(
        TAG, "Withdraw a draft or a proposal", body=ReviewPolicyReason, answer=ReviewPolicyDetail
    )
    def post(self, request: Request, review_policy_id: int) -> Response:
        given = self.body(ReviewPolicyReason)
        review_policy_withdraw(actor=self.actor, policy_id=review_policy_id, **given)
        return self.answer(_shown(self, review_policy_id), ReviewPolicyDetail)


def _shown(view: Endpoint, policy_id: int) -> ReviewPolicy:
    return review_policy_get(actor=view.actor, id=policy_id)
