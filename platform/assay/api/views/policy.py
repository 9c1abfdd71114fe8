"""Policies: drafts, proposals, decisions, and dry runs."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from assay.api.representations.governance import PolicyAnswer
from assay.api.representations.policy import (
    CaseResultAnswer,
    PolicyDifferenceAnswer,
    PolicyDocumentAnswer,
    PolicyVersionAnswer,
    PolicyVersionDetail,
    ReplayAnswer,
)
from assay.api.routes import Routes
from governance.errors import InvalidInput
from governance.policy.cases import CaseResult
from governance.policy.differences import difference
from governance.policy.document import document_to_yaml
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
from governance.policy.models import PolicyVersion
from governance.policy.replay import Replay, policy_replay
from governance.policy.schemas import (
    DifferenceFilter,
    NewPolicyDraft,
    PolicyApproval,
    PolicyDraftChange,
    PolicyFilter,
    PolicyProposal,
    PolicyReason,
    ReplayFilter,
)
from governance.policy.selectors import (
    policy_get,
    policy_version_get,
    policy_versions_visible_to,
)
from governance.principals import Principal

routes = Routes("Policy", PolicyVersionDetail)


@routes.get("policy", "The policy in force", answer=PolicyAnswer)
def in_force(actor: Principal) -> PolicyVersion:
    return policy_get(actor=actor)


@routes.list("policy/versions", "List policies", answer=PolicyVersionAnswer)
def list_policy(actor: Principal, query: PolicyFilter) -> QuerySet[PolicyVersion]:
    return query.applied(policy_versions_visible_to(actor)).defer("rules", "tests")


@routes.post("policy/versions", "Draft a policy", status=201, judged=True)
def draft(actor: Principal, body: NewPolicyDraft) -> PolicyVersion:
    document = _document(actor, body.model_dump(exclude_unset=True))
    if document.get("rules") is None:
        raise InvalidInput("A policy needs rules.", fields={"rules": ["Needed, unless `yaml` is."]})
    version = draft_create(actor=actor, **document)
    return policy_version_get(actor=actor, number=version.number)


@routes.get("policy/versions/<id:number>", "One policy, with its rules and tests")
def show(actor: Principal, number: int) -> PolicyVersion:
    return policy_version_get(actor=actor, number=number)


@routes.patch("policy/versions/<id:number>", "Change a draft", judged=True)
def change(actor: Principal, number: int, body: PolicyDraftChange) -> PolicyVersion:
    values = body.model_dump(exclude_unset=True)
    expected = values.pop("content_digest", None)
    changes = _document(actor, values)
    draft_update(actor=actor, number=number, expected=expected, **changes)
    return policy_version_get(actor=actor, number=number)


@routes.delete("policy/versions/<id:number>", "Discard a draft")
def delete(actor: Principal, number: int) -> None:
    draft_delete(actor=actor, number=number)


@routes.get(
    "policy/versions/<id:number>/document",
    "A policy as YAML",
    answer=PolicyDocumentAnswer,
    name="policy_document_get",
)
def document(actor: Principal, number: int) -> dict[str, str]:
    version = policy_version_get(actor=actor, number=number)
    return {"yaml": document_to_yaml(rules=version.rules, tests=version.tests, note=version.note)}


@routes.list(
    "policy/versions/<id:number>/tests",
    "Results of a policy's own tests",
    answer=CaseResultAnswer,
    order=(),
    name="policy_tests_get",
)
def tests(actor: Principal, number: int) -> list[CaseResult]:
    return version_test(policy_version_get(actor=actor, number=number))


@routes.get(
    "policy/versions/<id:number>/diff",
    "Changes of a policy",
    answer=PolicyDifferenceAnswer,
    name="policy_difference_get",
)
def compare(actor: Principal, number: int, query: DifferenceFilter) -> dict[str, Any]:
    after = policy_version_get(actor=actor, number=number)
    earlier = query.against or after.based_on or number
    before = policy_version_get(actor=actor, number=earlier)
    changes = difference(before.rules, after.rules, before.tests, after.tests)
    return {**changes.as_dict(), "before": before.number, "after": after.number}


@routes.post(
    "policy/versions/<id:number>/propose",
    "Propose a draft: its own tests must pass",
    name="policy_propose_post",
)
def propose(actor: Principal, number: int, body: PolicyProposal) -> PolicyVersion:
    policy_propose(actor=actor, number=number, acknowledge_removals=body.acknowledge_removals)
    return policy_version_get(actor=actor, number=number)


@routes.post(
    "policy/versions/<id:number>/approve",
    "Approve a proposal, which puts it in force at once",
    name="policy_approve_post",
)
def approve(actor: Principal, number: int, body: PolicyApproval) -> PolicyVersion:
    policy_approve(actor=actor, number=number, **dict(body))
    return policy_version_get(actor=actor, number=number)


@routes.post("policy/versions/<id:number>/reject", "Reject a proposal", name="policy_reject_post")
def reject(actor: Principal, number: int, body: PolicyReason) -> PolicyVersion:
    policy_reject(actor=actor, number=number, reason=body.reason)
    return policy_version_get(actor=actor, number=number)


@routes.post(
    "policy/versions/<id:number>/withdraw", "Withdraw a proposal", name="policy_withdraw_post"
)
def withdraw(actor: Principal, number: int, body: PolicyReason) -> PolicyVersion:
    policy_withdraw(actor=actor, number=number, reason=body.reason)
    return policy_version_get(actor=actor, number=number)


@routes.get(
    "policy/versions/<id:number>/replay",
    "Dry run: repeat the last recorded decisions under a policy, and list those that change",
    answer=ReplayAnswer,
    name="policy_replay_get",
)
def replay(actor: Principal, number: int, query: ReplayFilter) -> Replay:
    return policy_replay(actor=actor, number=number, last=query.last)


def _document(actor: Principal, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with `yaml` replaced by its parts.

    Raises:
        NotFound, NotPermitted: as `policy_read`.
        InvalidInput: `yaml` is not valid, or was sent together with its own parts.
    """
    text = values.pop("yaml", None)
    if text is None:
        return values
    if doubled := sorted({"rules", "tests", "note"} & values.keys()):
        raise InvalidInput(
            "Send a policy as `yaml` or by its parts, not both.",
            fields={name: ["Sent together with `yaml`."] for name in doubled},
        )
    document = policy_read(actor=actor, text=text)
    return values | {"rules": document.rules, "tests": document.tests, "note": document.note}
