"""Questions about the policy: reasons of decisions, and the principals that may do an action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from governance.audit.models import AuditEvent
from governance.audit.personal import opened_body
from governance.audit.selectors import audit_event_get
from governance.errors import WrongState
from governance.keys.selectors import key_get, keys_visible_to
from governance.people.selectors import (
    people_visible_to,
    person_get,
    principal_for_person,
)
from governance.permissions import Action
from governance.policy.access import Holders, who_can_under
from governance.policy.context import probing_context
from governance.policy.decisions import Inputs
from governance.policy.engine import PolicyDecision, PolicySnapshot, Resource, decide
from governance.policy.lifecycle import version_snapshot
from governance.policy.selectors import policy_version_get
from governance.policy.services import active_policy, authorize
from governance.policy.trace import RuleTrace, explain
from governance.principals import Principal, PrincipalKind

HOLDERS_MAX = 500


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, rule by rule. `rules` has all rules about the action, the deciding ones first."""

    inputs: Inputs
    decision: PolicyDecision
    rules: list[RuleTrace]


@dataclass(frozen=True, slots=True)
class EventExplanation:
    """A recorded decision (`recorded`, `rules`), explained under the policy of that time (`then`;
    None if it is still in force) and the one in force (`now`).
    """

    event: AuditEvent
    recorded: bool
    rules: tuple[str, ...]
    then: Explanation | None
    now: Explanation


def decision_explain(*, actor: Principal, inputs: Inputs, number: int | None = None) -> Explanation:
    """Explain the decision on `inputs` under policy `number`, or under the one in force.

    Attributes that `inputs.context` omits have their present values.

    Raises:
        NotFound, NotPermitted: the policy does not exist, or the actor may not explain decisions.
    """
    snapshot = _snapshot(actor, number)
    context = {**probing_context(inputs.action), **inputs.context}
    return _explained(snapshot, Inputs(inputs.actor, inputs.action, inputs.resource, context))


def event_explain(*, actor: Principal, event_id: int) -> EventExplanation:
    """Explain the decision that an audit event records, and today's decision on the same request.

    Raises:
        NotFound, NotPermitted: the actor may not see the event, or may not explain decisions.
        WrongState: the event does not record a decision that can be repeated.
    """
    event = audit_event_get(actor=actor, id=event_id)
    authorize(actor=actor, action=Action.POLICY_EXPLAIN, resource=Resource("policy"))
    recorded = opened_body(event)["data"].get("decision")
    try:
        inputs = Inputs.from_dict(recorded)
        allowed, rules = bool(recorded["allowed"]), tuple(recorded["rules"])
    except (ValueError, KeyError, TypeError) as error:
        raise WrongState(
            f"Audit event {event_id} does not record a policy decision; there is nothing to "
            "explain.",
            hint="Its reason says what was refused, and why.",
        ) from error
    active = active_policy()
    then = None
    if event.policy_version not in (None, 0, active.version):
        version = policy_version_get(actor=actor, number=event.policy_version)
        then = _explained(version_snapshot(version), inputs)
    return EventExplanation(event, allowed, rules, then, _explained(active, inputs))


def who_can(
    *,
    actor: Principal,
    action: Action,
    resource: Resource,
    context: Mapping[str, Any] | None = None,
    number: int | None = None,
) -> Holders:
    """Return the people and keys, of those that the actor may see, that may do `action` on
    `resource` under policy `number`, or under the one in force.

    Raises:
        NotFound, NotPermitted: the policy does not exist, or the actor may not explain decisions.
    """
    snapshot = _snapshot(actor, number)
    return who_can_under(
        snapshot,
        action,
        resource,
        context=context,
        limit=HOLDERS_MAX,
        people=people_visible_to(actor),
        keys=keys_visible_to(actor),
    )


def question_principal(
    *, actor: Principal, person_id: int | None = None, key_id: int | None = None
) -> Principal:
    """Return a person or a key as a principal of the policy.

    Raises:
        NotFound: it does not exist, or the actor may not see it.
    """
    if person_id is not None:
        return principal_for_person(person_get(actor=actor, person_id=person_id))
    key = key_get(actor=actor, key_id=key_id or 0)
    scopes = frozenset(key.scopes)
    if key.person is not None:
        return principal_for_person(key.person, scopes=scopes or None, key_id=key.pk)
    return Principal(
        kind=PrincipalKind.KEY,
        id=str(key.pk),
        name=key.name,
        department=key.department.slug if key.department else None,
        scopes=scopes,
        key_id=key.pk,
    )


def _snapshot(actor: Principal, number: int | None) -> PolicySnapshot:
    authorize(actor=actor, action=Action.POLICY_EXPLAIN, resource=Resource("policy"))
    if number is None:
        return active_policy()
    return version_snapshot(policy_version_get(actor=actor, number=number))


def _explained(snapshot: PolicySnapshot, inputs: Inputs) -> Explanation:
    parts = (snapshot, inputs.actor, inputs.action, inputs.resource, inputs.context)
    decision = decide(*parts)
    traces = sorted(explain(*parts), key=lambda trace: trace.rule not in decision.rules)
    return Explanation(inputs, decision, traces)
