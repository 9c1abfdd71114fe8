"""Decisions of the gateway: recorded so that they can be made again, changed by a new policy."""

from __future__ import annotations

import pytest

from governance.audit.models import AuditEvent
from governance.audit.personal import opened_body
from governance.people.models import Person
from governance.policy.decisions import Inputs
from governance.policy.engine import decide
from governance.policy.inquiries import event_explain
from governance.policy.lifecycle import draft_create, policy_approve, policy_propose
from governance.policy.models import PolicyVersion
from governance.policy.replay import policy_replay
from governance.policy.services import active_policy
from governance.usage.collector import collect_once
from tests.proofs import proven
from tests.unit.assay.gateway_support import Stage, stage

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
CHAT = "/v1/chat/completions"
GOOD = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}]}


def admin(name: str) -> Person:
    made = Person.objects.create(name=name, email=f"{name}@example.org")
    made.role_assignments.create(role="admin")
    return made


def test_what_the_gateway_decided_is_rehearsed_under_a_draft_and_holds_once_it_is_approved(
    stage: Stage,
) -> None:
    ada, ben = (proven(admin(name)) for name in ("adele", "ben"))
    stage.deployment(visibility="organization")
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    assert stage.post(CHAT, stage.key("finance"), json=GOOD).status_code == 403
    stage.entries(2)
    assert collect_once(stage.redis, consumer="test") == 2

    used, refused = AuditEvent.objects.filter(action="deployment:invoke").order_by("id")
    for event, allowed in ((used, True), (refused, False)):
        recorded = opened_body(event)["data"]["decision"]
        asked = Inputs.from_dict(recorded)
        again = decide(active_policy(), asked.actor, asked.action, asked.resource, asked.context)
        assert recorded["allowed"] is again.allowed is allowed
        assert tuple(recorded["rules"]) == again.rules
        assert {"time", "weekday", "client_address"} <= set(recorded["context"])
        assert event_explain(actor=ada, event_id=event.pk).now.decision.allowed is allowed

    rules = PolicyVersion.objects.get().rules
    stricter = [rule for rule in rules if rule["id"] != "named-departments-use"]
    draft = draft_create(actor=ada, rules=stricter, tests=[])
    rehearsed = policy_replay(actor=ada, number=draft.number)
    (group,) = [g for g in rehearsed.groups if g.action == "deployment:invoke"]
    assert (group.count, group.allowed) == (1, False)
    assert [flip.event for flip in group.examples] == [used.pk]

    policy_propose(actor=ada, number=draft.number, acknowledge_removals=True)
    policy_approve(actor=ben, number=draft.number, acknowledge_removals=True)
    stage.notify()
    assert stage.post(CHAT, token, json=GOOD).status_code == 403
