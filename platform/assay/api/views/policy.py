"""Policies: drafts, proposals, decisions, and rehearsals of what would change."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Paragraphs, Several, StrictSerializer, Whole
from assay.api.representations.governance import PolicyAnswer
from assay.api.representations.policy import (
    CaseResultAnswer,
    PolicyDifferenceAnswer,
    PolicyDocumentAnswer,
    PolicyVersionAnswer,
    PolicyVersionDetail,
    ReplayAnswer,
)
from governance.bounds import NOT_IN_TEXT
from governance.errors import InvalidInput
from governance.policy.differences import difference
from governance.policy.document import MAX_BYTES, MAX_CASES, MAX_RULES, document_to_yaml
from governance.policy.lifecycle import (
    draft_create,
    draft_delete,
    draft_update,
    policy_approve,
    policy_propose,
    policy_read,
    policy_reject,
    policy_withdraw,
    version_test,
)
from governance.policy.models import DECISION_NOTE_MAX, NOTE_MAX, PolicyState, PolicyVersion
from governance.policy.replay import LAST_MAX, policy_replay
from governance.policy.selectors import (
    policy_get,
    policy_version_get,
    policy_versions_visible_to,
)
from governance.principals import Principal

TAG = "Policy"
NUMBER_MAX = 2**31 - 1


class PolicyText(serializers.CharField):
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


class _Objects(Several):
    """A list of JSON objects, which the policy's own schema validates."""

    def __init__(self, most: int, **kwargs: Any) -> None:
        super().__init__(child=serializers.DictField(), max_length=most, **kwargs)


class PolicyQuery(StrictSerializer):
    """Filters of the list."""

    state = Choice(choices=PolicyState.choices, required=False)


class DraftBody(StrictSerializer):
    """A policy as `yaml`, or as `rules`, `tests` and `note`."""

    yaml = PolicyText(required=False)
    rules = _Objects(MAX_RULES, required=False)
    tests = _Objects(MAX_CASES, required=False)
    note = Paragraphs(max_length=NOTE_MAX, required=False, allow_blank=True)
    based_on = Whole(min_value=1, max_value=NUMBER_MAX, required=False)


class DraftChange(DraftBody):
    """Fields to change; the others stay. With `content_digest`, only while the draft has that
    digest.
    """

    content_digest = serializers.RegexField("^[0-9a-f]{64}$", required=False)


class PolicyView(Endpoint):
    """The rules in force."""

    @operation(TAG, "The policy in force", answer=PolicyAnswer)
    def get(self, request: Request) -> Response:
        self.query()
        return self.answer(policy_get(actor=self.actor), PolicyAnswer)


class PolicyVersionsView(Endpoint):
    """Policies, newest first."""

    @operation(TAG, "List policies", query=PolicyQuery, answer=PolicyVersionAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(PolicyQuery)
        versions = policy_versions_visible_to(self.actor).filter(**given)
        return self.page(versions.defer("rules", "tests"), PolicyVersionAnswer)

    @operation(TAG, "Draft a policy", body=DraftBody, answer=PolicyVersionDetail, status=201)
    def post(self, request: Request) -> Response:
        given = _document(self.actor, self.body(DraftBody))
        if "rules" not in given:
            raise InvalidInput(
                "A policy has rules.", fields={"rules": ["Needed, or `yaml` instead."]}
            )
        made = draft_create(actor=self.actor, **given)
        return self.answer(_shown(self, made.number), PolicyVersionDetail, status=201)


class PolicyVersionView(Endpoint):
    """One policy."""

    @operation(TAG, "One policy, with its rules and tests", answer=PolicyVersionDetail)
    def get(self, request: Request, number: int) -> Response:
        self.query()
        return self.answer(_shown(self, number), PolicyVersionDetail)

    @operation(TAG, "Change a draft", body=DraftChange, answer=PolicyVersionDetail)
    def patch(self, request: Request, number: int) -> Response:
        given = self.body(DraftChange)
        expected = given.pop("content_digest", None)
        changes = _document(self.actor, given)
        draft_update(actor=self.actor, number=number, expected=expected, **changes)
        return self.answer(_shown(self, number), PolicyVersionDetail)

    @operation(TAG, "Throw a draft away", answer=None, status=204)
    def delete(self, request: Request, number: int) -> Response:
        draft_delete(actor=self.actor, number=number)
        return Response(status=204)


class PolicyDocumentView(Endpoint):
    """A policy as code."""

    @operation(TAG, "A policy as YAML", answer=PolicyDocumentAnswer)
    def get(self, request: Request, number: int) -> Response:
        self.query()
        version = _shown(self, number)
        text = document_to_yaml(rules=version.rules, tests=version.tests, note=version.note)
        return self.answer({"yaml": text}, PolicyDocumentAnswer)


class PolicyTestsView(Endpoint):
    """A policy's own tests."""

    @operation(TAG, "What comes of a policy's own tests", answer=CaseResultAnswer(many=True))
    def get(self, request: Request, number: int) -> Response:
        self.query()
        return Response(self.rendered(version_test(_shown(self, number)), CaseResultAnswer))


class DifferenceQuery(StrictSerializer):
    """Which policy to compare with; the one it is based on unless told."""

    against = serializers.IntegerField(min_value=1, max_value=NUMBER_MAX, required=False)


class PolicyDifferenceView(Endpoint):
    """Two policies compared."""

    @operation(
        TAG,
        "What a policy changes",
        query=DifferenceQuery,
        answer=PolicyDifferenceAnswer,
    )
    def get(self, request: Request, number: int) -> Response:
        given = self.query(DifferenceQuery)
        after = _shown(self, number)
        before = _shown(self, given.get("against") or after.based_on or number)
        found = difference(before.rules, after.rules, before.tests, after.tests)
        answer = {
            **asdict(found),
            "changed": [changed._asdict() for changed in found.changed],
            "before": before.number,
            "after": after.number,
        }
        return self.answer(answer, PolicyDifferenceAnswer)


class ProposeBody(StrictSerializer):
    """Acknowledgment of what a policy removes."""

    acknowledge_removals = serializers.BooleanField(
        default=False,
        help_text="Needed if the policy drops rules or tests of the policy in force.",
    )


class PolicyProposeView(Endpoint):
    """Ask for a decision."""

    @operation(
        TAG,
        "Propose a draft: its own tests must pass",
        body=ProposeBody,
        answer=PolicyVersionDetail,
    )
    def post(self, request: Request, number: int) -> Response:
        policy_propose(actor=self.actor, number=number, **self.body(ProposeBody))
        return self.answer(_shown(self, number), PolicyVersionDetail)


class ApproveBody(ProposeBody):
    """Note of the approval, and the acknowledgment of removals."""

    note = Paragraphs(max_length=DECISION_NOTE_MAX, required=False, allow_blank=True)


class PolicyApproveView(Endpoint):
    """A second person puts a policy in force."""

    @operation(
        TAG,
        "Approve a proposal, which is in force at once",
        body=ApproveBody,
        answer=PolicyVersionDetail,
    )
    def post(self, request: Request, number: int) -> Response:
        policy_approve(actor=self.actor, number=number, **self.body(ApproveBody))
        return self.answer(_shown(self, number), PolicyVersionDetail)


class ReasonBody(StrictSerializer):
    """Why."""

    reason = Paragraphs(max_length=DECISION_NOTE_MAX)


class PolicyRejectView(Endpoint):
    """A second person refuses a policy."""

    @operation(TAG, "Reject a proposal", body=ReasonBody, answer=PolicyVersionDetail)
    def post(self, request: Request, number: int) -> Response:
        policy_reject(actor=self.actor, number=number, **self.body(ReasonBody))
        return self.answer(_shown(self, number), PolicyVersionDetail)


class PolicyWithdrawView(Endpoint):
    """An author takes a proposal back."""

    @operation(TAG, "Withdraw a proposal", body=ReasonBody, answer=PolicyVersionDetail)
    def post(self, request: Request, number: int) -> Response:
        policy_withdraw(actor=self.actor, number=number, **self.body(ReasonBody))
        return self.answer(_shown(self, number), PolicyVersionDetail)


class ReplayQuery(StrictSerializer):
    """How many decisions; 1,000 unless told."""

    last = serializers.IntegerField(min_value=1, max_value=LAST_MAX, required=False)


class PolicyReplayView(Endpoint):
    """A dry run."""

    @operation(
        TAG,
        "Dry run: the last recorded decisions under a policy, and every verdict that flips",
        query=ReplayQuery,
        answer=ReplayAnswer,
    )
    def get(self, request: Request, number: int) -> Response:
        given = self.query(ReplayQuery)
        return self.answer(policy_replay(actor=self.actor, number=number, **given), ReplayAnswer)


def _shown(view: Endpoint, number: int) -> PolicyVersion:
    return policy_version_get(actor=view.actor, number=number)


def _document(actor: Principal, given: dict[str, Any]) -> dict[str, Any]:
    """`yaml` taken apart into what the services take.

    Raises:
        NotFound, NotPermitted: as `policy_read`.
        InvalidInput: it is given together with its own parts, or not valid.
    """
    text = given.pop("yaml", None)
    if text is None:
        return given
    if doubled := sorted({"rules", "tests", "note"} & given.keys()):
        raise InvalidInput(
            "Give a policy as `yaml` or by its parts: one of the two.",
            fields={name: ["Given together with `yaml`."] for name in doubled},
        )
    document = policy_read(actor=actor, text=text)
    return given | {
        "rules": document.rules,
        "tests": document.tests,
        "note": document.note,
    }
