"""Input about review policies."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from governance.bounds import TIER_MAX
from governance.policy.models import DECISION_NOTE_MAX, PolicyState
from governance.policy.schemas import Digest
from governance.reviews.policies.document import MAX_BYTES
from governance.schemas import Filter, Paragraphs, ParagraphsOrEmpty, Schema, Slug, Verbatim


class ReviewPolicyFilter(Filter):
    """Filters of the list."""

    name: Slug | None = Field(default=None, max_length=TIER_MAX)
    state: PolicyState | None = None


class ReviewPolicyText(Schema):
    """A version of a policy, in YAML; its `name` names the policy."""

    text: Verbatim = Field(min_length=1, max_length=MAX_BYTES)


class ReviewPolicyChange(ReviewPolicyText):
    """New text of a draft. With `digest`, it is saved only if the draft still has that digest."""

    digest: Digest | None = None


class ReviewPolicyDecision(Schema):
    """The decision of a person who did not edit the policy."""

    verdict: Literal["approve", "reject"]
    reason: Paragraphs = Field(max_length=DECISION_NOTE_MAX)


class ReviewPolicyReason(Schema):
    """Reason for withdrawing a draft or a proposal."""

    reason: ParagraphsOrEmpty = Field(default="", max_length=DECISION_NOTE_MAX)
