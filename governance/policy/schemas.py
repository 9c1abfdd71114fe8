"""Input about policies."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from governance.permissions import Action
from governance.policy.cases import CasePrincipal, CaseResource
from governance.policy.document import MAX_BYTES, MAX_CASES, MAX_RULES
from governance.policy.models import DECISION_NOTE_MAX, NOTE_MAX, PolicyState
from governance.policy.replay import LAST_MAX
from governance.schemas import (
    Choice,
    Filter,
    Id,
    Line,
    Paragraphs,
    ParagraphsOrEmpty,
    Schema,
    Verbatim,
)

Yaml = Annotated[Verbatim, Field(min_length=1, max_length=MAX_BYTES)]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PolicyFilter(Filter):
    """Filters of the list."""

    state: PolicyState | None = None


class NewPolicyDraft(Schema):
    """A policy as `yaml`, or as `rules`, `tests` and `note`."""

    yaml: Yaml | None = None
    rules: list[dict[str, Any]] | None = Field(default=None, max_length=MAX_RULES)
    tests: list[dict[str, Any]] | None = Field(default=None, max_length=MAX_CASES)
    note: ParagraphsOrEmpty | None = Field(default=None, max_length=NOTE_MAX)
    based_on: Number | None = None


class PolicyDraftChange(NewPolicyDraft):
    """Fields to change; omitted ones stay. With `content_digest`, the change is saved only if the
    draft still has that digest.
    """

    content_digest: Digest | None = None


class DifferenceFilter(Filter):
    """Number of the policy to compare with; by default, that of the policy's base."""

    against: Number | None = None


class ReplayFilter(Filter):
    """Number of the last decisions to replay."""

    last: int = Field(default=1000, ge=1, le=LAST_MAX)


class PolicyProposal(Schema):
    """Acknowledgment of what a policy removes."""

    acknowledge_removals: bool = Field(
        default=False,
        description="Needed if the policy drops rules or tests of the policy in force.",
    )


class PolicyApproval(PolicyProposal):
    """Note of the approval, and the acknowledgment of removals."""

    note: ParagraphsOrEmpty = Field(default="", max_length=DECISION_NOTE_MAX)


class PolicyReason(Schema):
    """Reason for rejecting or withdrawing a proposal."""

    reason: Paragraphs = Field(max_length=DECISION_NOTE_MAX)


class QuestionResource(Schema, CaseResource):
    """An existing resource, by `type` and `reference` (its name or number), or a described one,
    with the `department` and `attributes` that conditions of rules read.
    """

    reference: Line | None = Field(default=None, max_length=120)


class QuestionPrincipal(Schema, CasePrincipal):
    """A `person` or a `key` by ID, or a described principal, as in a policy's tests."""

    person: Id | None = None
    key: Id | None = None


class WhoCanQuestion(Schema):
    """Action, resource, context and policy of a question."""

    action: Choice[Action]
    resource: QuestionResource
    context: dict[str, Any] = Field(default={}, max_length=20)
    policy: Number | None = None


class ExplainQuestion(WhoCanQuestion):
    """Action, resource, context, policy and principal of a question."""

    principal: QuestionPrincipal
