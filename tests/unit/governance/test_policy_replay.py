from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.audit.personal import opened_body
from governance.audit.services import AuditEntry, Subject, audit_record_many, audit_refusal
from governance.errors import DomainError, InvalidInput, NotFound, NotPermitted
from governance.keys.models import ApiKey
from governance.people.models import Department
from governance.people.services import department_create
from governance.permissions import Action
from governance.policy.access import who_can_under
from governance.policy.decisions import Authorization, Inputs, inputs
from governance.policy.engine import Resource, decide
from governance.policy.inquiries import decision_explain, who_can
from governance.policy.lifecycle import draft_create
from governance.policy.models import PolicyVersion
from governance.policy.replay import policy_replay
from governance.policy.services import active_policy, authorize
from governance.principals import ActorRole, Principal, PrincipalKind
from tests.unit.policy_support import install_rules

GATE = Resource("gate", id="1", name="accuracy", department="clinical")
DEPLOYMENT = Resource(
    "deployment",
    id="4",
    name="docstring-writer",
    department="clinical",
    attributes={"departments": frozenset({"finance", "clinical"}), "visibility": "department"},
)


@pytest.fixture
def ada(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


def record(actor: Principal, action: Action, resource: Resource, **context: Any) -> None:
    """A decision of now, in the audit log, as the gateway writes it."""
    decision = decide(active_policy(), actor, action, resource, context)
    asked = Inputs(actor, action.value, resource, context)
    with transaction.atomic():
        audit_record_many(
            [
                AuditEntry(
                    actor=actor,
                    action=action.value,
                    subject=Subject(resource.type, resource.id, resource.name),
                    outcome="allowed" if decision.allowed else "denied",
                    decision=Authorization(decision, asked),
                )
            ]
        )


def key_of(department: str) -> Principal:
    return Principal(
        PrincipalKind.KEY, "7", "batch", department, scopes=frozenset(["deployment:invoke"])
    )


def without(policy: PolicyVersion, rule: str) -> list[dict[str, Any]]:
    return [row for row in policy.rules if row["id"] != rule]


def test_what_a_decision_was_made_of_is_read_back_as_it_was() -> None:
    actor = Principal(
        PrincipalKind.PERSON,
        "3",
        "Lea",
        roles=frozenset({ActorRole("lead", "clinical"), ActorRole("reviewer", None, "security")}),
        scopes=frozenset({"model:view"}),
        person_id=3,
        key_id=9,
    )
    written = inputs(actor, "deployment:invoke", DEPLOYMENT, {"tokens": 7, "time": "09:30"})
    read = Inputs.from_dict(written)
    assert (read.actor, read.action) == (actor, "deployment:invoke")
    assert read.context == {"tokens": 7, "time": "09:30"}
    assert read.resource.attributes["departments"] == ["clinical", "finance"]
    assert inputs(read.actor, read.action, read.resource, read.context) == written


@pytest.mark.parametrize("wrong", [{}, {"principal": 3}, {"principal": {"kind": "god"}}, None, []])
def test_what_is_no_record_of_a_decision_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="not the inputs of a decision"):
        Inputs.from_dict(wrong)


def test_what_is_too_large_to_record_is_left_out_and_said_to_be() -> None:
    huge = Resource("model", attributes={"departments": ["x" * 200] * 400})
    assert set(inputs(key_of("clinical"), "model:view", huge)) == {"omitted"}


def test_the_same_verdicts_come_of_a_recorded_decision(
    policy: PolicyVersion, ada: Principal, actor: Callable[..., Principal]
) -> None:
    people = [
        ada,
        actor("Dora", "developer@clinical"),
        actor("Finn", "viewer@finance"),
        actor("No"),
    ]
    for who in (*people, key_of("finance"), key_of("legal")):
        for action in Action:
            for what in (GATE, DEPLOYMENT):
                first = decide(active_policy(), who, action, what, {})
                read = Inputs.from_dict(inputs(who, action, what, {}))
                again = decide(
                    active_policy(), read.actor, read.action, read.resource, read.context
                )
                assert (again.allowed, again.rules) == (first.allowed, first.rules)


def test_a_dry_run_lists_every_verdict_that_flips_before_the_draft_is_in_force(
    policy: PolicyVersion, ada: Principal, actor: Callable[..., Principal]
) -> None:
    dora = actor("Dora", "developer@clinical")
    for _ in range(3):
        record(key_of("finance"), Action.DEPLOYMENT_INVOKE, DEPLOYMENT)
    record(dora, Action.GATE_SET, GATE)
    record(actor("Vera", "viewer@clinical"), Action.GATE_SET, GATE)
    rules = [
        *without(policy, "named-departments-use"),
        {
            "id": "viewers-set-gates",
            "effect": "permit",
            "description": "viewers set gates",
            "principal": {"department_roles": ["viewer"]},
            "actions": ["gate:set"],
        },
    ]
    draft = draft_create(actor=ada, rules=rules)

    result = policy_replay(actor=ada, number=draft.number, last=100)

    # The five above, and the event of making the draft itself.
    assert (result.replayed, result.flips, result.drifted, result.unreadable) == (6, 4, 0, 0)
    assert (result.now_denied, result.now_allowed) == (3, 1)
    refused, permitted = result.groups
    assert (refused.action, refused.count, refused.allowed) == ("deployment:invoke", 3, False)
    assert refused.rules_before == ("named-departments-use",)
    assert refused.people == {"batch"}
    assert "Department finance: use deployment docstring-writer" in refused.examples[0].sentence
    assert (permitted.rules_after, permitted.count) == (("viewers-set-gates",), 1)
    assert active_policy().version == 1


def test_a_dry_run_goes_through_at_most_so_many_decisions_newest_first(
    policy: PolicyVersion, ada: Principal
) -> None:
    draft = draft_create(actor=ada, rules=without(policy, "named-departments-use"))
    for _ in range(5):
        record(key_of("finance"), Action.DEPLOYMENT_INVOKE, DEPLOYMENT)
    result = policy_replay(actor=ada, number=draft.number, last=2)
    assert (result.replayed, result.flips) == (2, 2)
    for last in (0, 10_001):
        with pytest.raises(InvalidInput, match="the last 1 to 10,000"):
            policy_replay(actor=ada, number=draft.number, last=last)


def test_a_dry_run_is_for_those_who_may_explain_decisions(
    policy: PolicyVersion, ada: Principal, actor: Callable[..., Principal]
) -> None:
    draft = draft_create(actor=ada, rules=policy.rules)
    assert policy_replay(actor=actor("Aud", "auditor"), number=draft.number).flips == 0
    with pytest.raises(NotFound):
        policy_replay(actor=actor("Lea", "lead@clinical"), number=draft.number)
    with pytest.raises(NotPermitted):
        policy_replay(actor=actor("Max", "lead@clinical"), number=1)


@pytest.mark.sweep
def test_a_dry_run_of_ten_thousand_decisions_takes_seconds_and_three_queries(
    policy: PolicyVersion, ada: Principal
) -> None:
    decision = decide(active_policy(), key_of("finance"), Action.DEPLOYMENT_INVOKE, DEPLOYMENT)
    asked = Inputs(key_of("finance"), "deployment:invoke", DEPLOYMENT)
    entry = AuditEntry(
        actor=key_of("finance"),
        action="deployment:invoke",
        subject=Subject("deployment", "4", "docstring-writer"),
        decision=Authorization(decision, asked),
    )
    with transaction.atomic():
        audit_record_many([entry] * 10_000)
    draft = draft_create(actor=ada, rules=without(policy, "named-departments-use"))
    started = time.thread_time()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        result = policy_replay(actor=ada, number=draft.number, last=10_000)
    took = time.thread_time() - started
    assert (result.replayed, result.flips) == (10_000, 9_999)
    assert took < 10
    assert len(queries) <= 8


def test_a_change_and_a_refusal_carry_their_decision_and_no_other_event_does(
    ada: Principal, actor: Callable[..., Principal]
) -> None:
    authorize(actor=ada, action=Action.AUDIT_VIEW, resource=Resource("audit"))
    department_create(actor=ada, slug="clinical", name="Clinical")
    data = opened_body(AuditEvent.objects.get(action="department:create"))["data"]
    assert data["decision"]["action"] == "department:create"
    assert data["decision"]["rules"] == ["admins-manage"]
    with pytest.raises(DomainError) as caught:
        department_create(actor=actor("Dora", "developer@clinical"), slug="x1", name="X")
    attempt = caught.value.attempt
    assert attempt is not None
    assert attempt.decision is not None
    assert attempt.decision.decision.allowed is False
    assert attempt.decision.to_json()["principal"]["roles"] == [["developer", "clinical", ""]]


@pytest.mark.django_db(transaction=True)
def test_the_event_of_a_refusal_can_be_replayed(actor: Callable[..., Principal]) -> None:
    dora = actor("Dora", "developer@clinical")
    with pytest.raises(DomainError) as caught:
        authorize(
            actor=dora, action=Action.GATE_SET, resource=Resource("gate", department="finance")
        )
    audit_refusal(caught.value)
    body = opened_body(AuditEvent.objects.get(outcome="denied"))
    asked = Inputs.from_dict(body["data"]["decision"])
    assert asked.actor == dora
    assert not decide(active_policy(), asked.actor, asked.action, asked.resource).allowed


def test_who_can_names_people_and_keys_with_the_rule_and_asks_three_queries(
    policy: PolicyVersion,
    ada: Principal,
    actor: Callable[..., Principal],
    department: Callable[[str], Department],
) -> None:
    dora = actor("Dora", "developer@finance", "viewer@clinical")
    actor("Vera", "viewer@finance")
    actor("Nobody")
    for slug in ("finance", "legal"):
        for n, revoked in enumerate((None, timezone.now())):
            ApiKey.objects.create(
                public_id=f"{slug}{n}",
                secret_hmac=b"x",
                pepper_version=1,
                name=f"{slug} {n}",
                department=department(slug),
                scopes=["deployment:invoke"],
                expires_at=timezone.now() + timedelta(days=1),
                revoked_at=revoked,
            )
    snapshot = active_policy()
    with CaptureQueriesContext(connection) as queries:
        found = who_can_under(snapshot, Action.DEPLOYMENT_INVOKE, DEPLOYMENT)
    assert len(queries) == 3
    assert [holder.principal.name for holder in found.people] == [dora.name]
    assert found.people[0].decision.rules == ("named-departments-use",)
    assert [holder.principal.name for holder in found.keys] == ["finance 0"]
    assert (found.people_checked, found.keys_checked) == (4, 2)


def test_who_can_names_nobody_whom_the_asker_may_not_see(
    policy: PolicyVersion,
    ada: Principal,
    actor: Callable[..., Principal],
    department: Callable[[str], Department],
) -> None:
    lena = actor("Lena", "lead@clinical")
    actor("Dora", "developer@finance")
    for slug in ("clinical", "finance"):
        ApiKey.objects.create(
            public_id=slug,
            secret_hmac=b"x",
            pepper_version=1,
            name=f"{slug} app",
            department=department(slug),
            scopes=["deployment:invoke"],
            expires_at=timezone.now() + timedelta(days=1),
        )
    leads_explain = {
        "id": "leads-explain",
        "effect": "permit",
        "description": "leads explain decisions",
        "principal": {"member_roles": ["lead"]},
        "actions": ["policy:explain"],
    }
    install_rules([*policy.rules, leads_explain])

    mine = who_can(actor=lena, action=Action.DEPLOYMENT_INVOKE, resource=DEPLOYMENT)
    assert [holder.principal.name for holder in mine.people] == ["Lena"]
    assert [holder.principal.name for holder in mine.keys] == ["clinical app"]
    assert (mine.people_total, mine.people_checked) == (1, 1)
    assert (mine.keys_total, mine.keys_checked) == (1, 1)

    every = who_can(actor=ada, action=Action.DEPLOYMENT_INVOKE, resource=DEPLOYMENT)
    assert [holder.principal.name for holder in every.people] == ["Dora", "Lena"]
    assert (every.people_total, every.keys_checked) == (2, 2)


def test_an_explanation_states_no_more_than_the_decision_itself_would_have(
    policy: PolicyVersion, ada: Principal
) -> None:
    """A condition on an attribute that is never stated is an error, which denies."""
    rule = {
        "id": "few-tokens",
        "effect": "forbid",
        "description": "few tokens",
        "principal": {"kinds": ["person"]},
        "actions": ["department:create", "deployment:invoke", "key:create"],
        "conditions": [
            {"attribute": "context.tokens", "operator": "gte", "value": 9},
        ],
    }
    install_rules([*policy.rules, rule])
    anything = Resource("department", name="legal")
    with pytest.raises(NotPermitted):
        authorize(actor=ada, action=Action.DEPARTMENT_CREATE, resource=anything)
    asked = Inputs(ada, Action.DEPARTMENT_CREATE, anything)
    assert not decision_explain(actor=ada, inputs=asked).decision.allowed
    assert who_can(actor=ada, action=Action.DEPARTMENT_CREATE, resource=anything).people == []
    dora = Principal(
        PrincipalKind.PERSON, "9", "D", roles=frozenset({ActorRole("developer", "finance")})
    )
    asked = Inputs(dora, Action.DEPLOYMENT_INVOKE, DEPLOYMENT)
    assert decision_explain(actor=ada, inputs=asked).decision.allowed
