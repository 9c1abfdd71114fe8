from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from governance.audit.models import AuditEvent
from governance.audit.personal import opened_body
from governance.errors import (
    DomainError,
    InvalidInput,
    NotFound,
    NotPermitted,
    TooLarge,
    WrongState,
)
from governance.people.models import Person
from governance.permissions import Action
from governance.policy.cases import failed_results, parse_cases, run_cases
from governance.policy.engine import PolicySnapshot, Resource
from governance.policy.lifecycle import (
    POLICIES,
    content_digest,
    draft_create,
    draft_delete,
    draft_update,
    policy_approve,
    policy_propose,
    policy_reject,
    policy_withdraw,
)
from governance.policy.models import PolicyState, PolicyVersion
from governance.policy.proposals import ALLOWED_TRANSITIONS
from governance.policy.selectors import policy_version_get, policy_versions_visible_to
from governance.policy.services import active_policy, authorize, policy_bootstrap
from governance.principals import Principal, service_principal
from tests.proofs import proven

pytestmark = pytest.mark.sweep

LET_VIEWERS_SET_GATES: dict[str, Any] = {
    "id": "viewers-set-gates",
    "effect": "permit",
    "description": "viewers set gates",
    "principal": {"department_roles": ["viewer"]},
    "actions": ["gate:set"],
}
CASE: dict[str, Any] = {
    "name": "a viewer sets a gate",
    "principal": {"roles": ["viewer@clinical"]},
    "action": "gate:set",
    "resource": {"type": "gate", "department": "clinical"},
    "expect": "permit",
}


@pytest.fixture
def ada(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


@pytest.fixture
def ben(actor: Callable[..., Principal]) -> Principal:
    return actor("Ben", "admin")


@pytest.fixture
def draft(policy: PolicyVersion, ada: Principal, ben: Principal) -> PolicyVersion:
    rules = [*policy.rules, LET_VIEWERS_SET_GATES]
    return draft_create(
        actor=ada, rules=rules, tests=[*policy.tests, CASE], note="Viewers set gates."
    )


def refreshed(version: PolicyVersion) -> PolicyVersion:
    return PolicyVersion.objects.get(pk=version.pk)


def actions_of(number: int) -> list[str]:
    events = AuditEvent.objects.filter(subject_type="policy", subject_id=str(number))
    return list(events.order_by("id").values_list("action", flat=True))


def test_a_draft_goes_in_force_when_a_second_admin_approves_it(
    draft: PolicyVersion, ada: Principal, ben: Principal, actor: Callable[..., Principal]
) -> None:
    viewer = actor("Vera", "viewer@clinical")
    gate = Resource("gate", id="1", name="sentiment", department="clinical")
    with pytest.raises(NotPermitted):
        authorize(actor=viewer, action=Action.GATE_SET, resource=gate)

    policy_propose(actor=ada, number=draft.number)
    approved = policy_approve(actor=ben, number=draft.number, note="Agreed.")

    assert (approved.state, approved.based_on) == (PolicyState.ACTIVE, 1)
    assert (approved.proposed_by_id, approved.decided_by_id) == (ada.person_id, ben.person_id)
    assert approved.decision_note == "Agreed."
    assert PolicyVersion.objects.get(number=1).state == PolicyState.SUPERSEDED
    assert active_policy().version == draft.number
    assert authorize(actor=viewer, action=Action.GATE_SET, resource=gate).decision.allowed
    assert actions_of(2) == ["policy:draft", "policy:propose", "policy:activate"]
    assert actions_of(1)[-1] == "policy:supersede"


def test_whoever_wrote_on_a_policy_does_not_decide_on_it(
    draft: PolicyVersion, ada: Principal, ben: Principal, actor: Callable[..., Principal]
) -> None:
    cyd = actor("Cyd", "admin")
    draft_update(actor=ben, number=draft.number, note="Another word.")
    policy_propose(actor=ada, number=draft.number)

    for author in (ada, ben):
        for decide in (policy_approve, policy_reject):
            with pytest.raises(NotPermitted, match="Separation of duties") as caught:
                decide(actor=author, number=draft.number, **_word(decide))
            assert caught.value.attempt is not None
    assert policy_approve(actor=cyd, number=draft.number).state == PolicyState.ACTIVE


def _word(service: Any) -> dict[str, str]:
    return {"reason": "no"} if service is policy_reject else {"note": "yes"}


def test_the_database_refuses_an_author_who_decides_whoever_writes(
    draft: PolicyVersion, ada: Principal
) -> None:
    policy_propose(actor=ada, number=draft.number)
    PolicyVersion.objects.filter(number=1).update(state=PolicyState.SUPERSEDED)
    rows = PolicyVersion.objects.filter(pk=draft.pk)
    for change in (
        {"state": PolicyState.ACTIVE, "decided_by_id": ada.person_id},
        {"state": PolicyState.ACTIVE},
        {"state": PolicyState.REJECTED},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(**change)
    assert refreshed(draft).state == PolicyState.PROPOSED


def test_the_database_keeps_what_is_no_draft_as_it_is(
    draft: PolicyVersion, ada: Principal, ben: Principal
) -> None:
    policy_propose(actor=ada, number=draft.number)
    rows = PolicyVersion.objects.filter(pk=draft.pk)
    for change in (
        {"rules": []},
        {"tests": []},
        {"note": "x"},
        {"based_on": None},
        {"authors": []},
        {"authors": [ada.person_id, ben.person_id]},
        {"proposed_by_id": ben.person_id},
        {"state": PolicyState.DRAFT},
        {"state": PolicyState.SUPERSEDED},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(**change)
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.delete()


def test_the_installed_policy_does_not_come_back_without_a_decision(policy: PolicyVersion) -> None:
    rows = PolicyVersion.objects.filter(number=1)
    rows.update(state=PolicyState.SUPERSEDED)
    with pytest.raises(IntegrityError, match="superseded permanently"), transaction.atomic():
        rows.update(state=PolicyState.ACTIVE)


@pytest.mark.parametrize("before", PolicyState)
@pytest.mark.parametrize("after", PolicyState)
def test_a_policy_moves_as_the_table_says_and_the_database_keeps_decisions(
    policy: PolicyVersion,
    actor: Callable[..., Principal],
    before: PolicyState,
    after: PolicyState,
) -> None:
    ada, ben = actor("Ada", "admin"), actor("Ben", "admin")
    signed = {
        "authors": [ada.person_id],
        "proposed_by_id": ada.person_id,
        "decided_by_id": ben.person_id,
    }
    if before is PolicyState.DRAFT:
        signed = {"authors": [ada.person_id]}
    elif before is PolicyState.PROPOSED:
        signed.pop("decided_by_id")
    PolicyVersion.objects.filter(state=PolicyState.ACTIVE).update(state=PolicyState.SUPERSEDED)
    version = PolicyVersion.objects.create(number=9, state=before, rules=[], digest="", **signed)
    mover = ada if after is PolicyState.PROPOSED else ben

    if after in ALLOWED_TRANSITIONS[before]:
        POLICIES.move(version, after, actor=mover)
        assert refreshed(version).state == after
        return
    with pytest.raises(WrongState, match=f"Policy 9 is {before}; it cannot become {after}"):
        POLICIES.move(version, after, actor=mover)
    # The database keeps decisions; the rest is the services' rule alone.
    if after is not before and after is not PolicyState.SUPERSEDED:
        with pytest.raises(IntegrityError), transaction.atomic():
            PolicyVersion.objects.filter(pk=version.pk).update(state=after)


def test_a_policy_that_fails_its_own_tests_is_not_proposed_and_the_tests_are_named(
    policy: PolicyVersion, ada: Principal
) -> None:
    draft = draft_create(actor=ada, rules=policy.rules, tests=[CASE])
    with pytest.raises(WrongState, match="a viewer sets a gate") as caught:
        policy_propose(actor=ada, number=draft.number)
    assert caught.value.status == 409
    assert list(caught.value.fields) == ["tests.a viewer sets a gate"]
    assert refreshed(draft).state == PolicyState.DRAFT


def test_a_proposal_whose_base_was_replaced_is_not_approved(
    policy: PolicyVersion, draft: PolicyVersion, ada: Principal, ben: Principal
) -> None:
    other = draft_create(actor=ada, rules=policy.rules, note="Another.")
    for version in (draft, other):
        policy_propose(actor=ada, number=version.number)
    policy_approve(actor=ben, number=draft.number)

    with pytest.raises(WrongState, match="drafted from version 1, but policy 2 is in force"):
        policy_approve(actor=ben, number=other.number)
    assert active_policy().version == draft.number


def test_a_draft_is_based_anew_on_the_policy_in_force(
    policy: PolicyVersion, draft: PolicyVersion, ada: Principal, ben: Principal
) -> None:
    other = draft_create(actor=ada, rules=policy.rules, note="Another.")
    policy_propose(actor=ada, number=draft.number)
    policy_approve(actor=ben, number=draft.number)
    with pytest.raises(WrongState):
        policy_propose(actor=ada, number=other.number)
    draft_update(actor=ada, number=other.number, based_on=draft.number)
    # This draft would remove the additions of policy 2.
    with pytest.raises(WrongState, match="removes 1 rule and 1 test of policy 2"):
        policy_propose(actor=ada, number=other.number)
    proposed = policy_propose(actor=ada, number=other.number, acknowledge_removals=True)
    assert proposed.state == PolicyState.PROPOSED


@pytest.mark.parametrize("lost", ["policy:decide", "policy:draft", "policy:view"])
def test_nobody_locks_everybody_out(
    policy: PolicyVersion, ada: Principal, ben: Principal, lost: str
) -> None:
    rules = [
        *policy.rules,
        {
            "id": "nobody",
            "effect": "forbid",
            "description": "nobody does",
            "principal": {"kinds": ["person"]},
            "actions": [lost],
        },
    ]
    draft = draft_create(actor=ada, rules=rules, tests=[])
    with pytest.raises(WrongState, match="mistake in it could not be corrected") as caught:
        policy_propose(actor=ada, number=draft.number)
    assert caught.value.code == "policy_locks_out"


@pytest.mark.parametrize(
    ("action", "attribute", "value"),
    [
        ("policy:decide", "context.tokens", 100_000),
        ("policy:draft", "context.lifetime_days", 366),
    ],
)
def test_a_rule_about_what_nobody_states_of_a_policy_locks_everybody_out(
    policy: PolicyVersion,
    ada: Principal,
    ben: Principal,
    action: str,
    attribute: str,
    value: int,
) -> None:
    """It is an error whenever a policy is decided, which denies."""
    rules = [
        *policy.rules,
        {
            "id": "never-met",
            "effect": "forbid",
            "description": "sounds harmless",
            "principal": {"kinds": ["person"]},
            "actions": [action],
            "conditions": [{"attribute": attribute, "operator": "gte", "value": value}],
        },
    ]
    draft = draft_create(actor=ada, rules=rules, tests=[])
    with pytest.raises(WrongState, match="mistake in it could not be corrected"):
        policy_propose(actor=ada, number=draft.number)


def test_when_the_only_other_admin_leaves_before_the_approval_it_is_refused(
    draft: PolicyVersion, ada: Principal, ben: Principal
) -> None:
    policy_propose(actor=ada, number=draft.number)
    Person.objects.filter(pk=ada.person_id).update(is_active=False)
    with pytest.raises(WrongState, match="1 of the people with a role could decide"):
        policy_approve(actor=ben, number=draft.number)


def test_deciding_only_by_day_locks_nobody_out(
    policy: PolicyVersion, ada: Principal, ben: Principal
) -> None:
    rules = [
        *policy.rules,
        {
            "id": "not-at-night",
            "effect": "forbid",
            "description": "no policy is decided in the evening",
            "principal": {"kinds": ["person"]},
            "actions": ["policy:decide"],
            "conditions": [{"attribute": "context.time", "operator": "gte", "value": "18:00"}],
        },
    ]
    draft = draft_create(actor=ada, rules=rules, tests=[])
    proposed = policy_propose(actor=ada, number=draft.number, acknowledge_removals=True)
    assert proposed.state == PolicyState.PROPOSED


def test_faults_in_rules_and_tests_are_named_by_field(
    policy: PolicyVersion, ada: Principal
) -> None:
    wrong = [{**LET_VIEWERS_SET_GATES, "actions": ["gate:fly"]}]
    case = {**CASE, "principal": {"roles": ["king@clinical"]}}
    with pytest.raises(InvalidInput) as caught:
        draft_create(actor=ada, rules=wrong, tests=[case])
    assert {"rules.0.actions.0", "tests.0.principal.roles.0"} <= set(caught.value.fields)
    with pytest.raises(TooLarge, match="2,000 are allowed"):
        draft_create(actor=ada, rules=[LET_VIEWERS_SET_GATES] * 2001)
    assert PolicyVersion.objects.count() == 1


def test_a_draft_that_was_changed_meanwhile_is_not_overwritten(
    draft: PolicyVersion, ada: Principal, ben: Principal
) -> None:
    seen = content_digest(draft)
    draft_update(actor=ben, number=draft.number, note="Ben's.", expected=seen)
    with pytest.raises(WrongState, match="changed meanwhile"):
        draft_update(actor=ada, number=draft.number, note="Ada's.", expected=seen)
    assert refreshed(draft).note == "Ben's."


def test_a_proposal_is_not_proposed_again_by_another_author(
    draft: PolicyVersion, ada: Principal, ben: Principal
) -> None:
    policy_propose(actor=ada, number=draft.number)
    with pytest.raises(WrongState, match="is proposed; it cannot become proposed"):
        policy_propose(actor=ben, number=draft.number)


def test_a_proposal_is_frozen_until_it_is_withdrawn(draft: PolicyVersion, ada: Principal) -> None:
    policy_propose(actor=ada, number=draft.number)
    with pytest.raises(WrongState, match="only a draft can be changed"):
        draft_update(actor=ada, number=draft.number, note="x")
    assert policy_withdraw(actor=ada, number=draft.number).state == PolicyState.WITHDRAWN
    with pytest.raises(WrongState, match="withdrawn; it cannot become proposed"):
        policy_propose(actor=ada, number=draft.number)


def test_a_draft_that_is_thrown_away_leaves_its_number_to_nobody(
    policy: PolicyVersion, draft: PolicyVersion, ada: Principal
) -> None:
    draft_delete(actor=ada, number=draft.number)
    assert refreshed(draft).state == PolicyState.WITHDRAWN
    assert draft_create(actor=ada, rules=policy.rules).number == draft.number + 1


def test_a_rejection_says_why(draft: PolicyVersion, ada: Principal, ben: Principal) -> None:
    policy_propose(actor=ada, number=draft.number)
    with pytest.raises(InvalidInput, match="Give a reason"):
        policy_reject(actor=ben, number=draft.number, reason=" ")
    rejected = policy_reject(actor=ben, number=draft.number, reason="Viewers view.")
    assert (rejected.state, rejected.decision_note) == (PolicyState.REJECTED, "Viewers view.")
    assert active_policy().version == 1


@pytest.mark.parametrize(
    ("role", "refusal"),
    [
        ("operator", NotPermitted),
        ("auditor", NotPermitted),
        ("lead@clinical", NotFound),
        ("reviewer:security", NotFound),
    ],
)
def test_only_admins_change_the_policy(
    policy: PolicyVersion,
    draft: PolicyVersion,
    actor: Callable[..., Principal],
    role: str,
    refusal: type[DomainError],
) -> None:
    other = actor("Otto", role)
    with pytest.raises(NotPermitted):
        draft_create(actor=other, rules=policy.rules)
    for service in (draft_update, draft_delete, policy_propose, policy_withdraw, policy_approve):
        with pytest.raises(refusal):
            service(actor=other, number=draft.number)
    with pytest.raises(NotFound):
        policy_propose(actor=actor("Ada2", "admin"), number=99)


def test_a_service_writes_no_policy(policy: PolicyVersion) -> None:
    with pytest.raises(DomainError):
        draft_create(actor=service_principal("controller"), rules=policy.rules)


def test_drafts_are_for_those_who_may_explain_policies_and_the_rest_for_everybody(
    draft: PolicyVersion, ada: Principal, actor: Callable[..., Principal]
) -> None:
    vera = actor("Vera", "viewer@clinical")
    assert [v.number for v in policy_versions_visible_to(ada)] == [2, 1]
    assert [v.number for v in policy_versions_visible_to(vera)] == [1]
    assert policy_version_get(actor=vera, number=1).number == 1
    with pytest.raises(NotFound, match="There is no policy 2"):
        policy_version_get(actor=vera, number=2)


def test_the_event_of_a_change_carries_the_decision_that_let_it_through(
    draft: PolicyVersion,
) -> None:
    event = AuditEvent.objects.get(action="policy:draft")
    decision = opened_body(event)["data"]["decision"]
    assert decision["allowed"] is True
    assert decision["rules"] == ["admins-manage"]
    assert decision["action"] == "policy:draft"
    assert decision["principal"]["roles"] == [["admin", None, ""]]


@pytest.mark.django_db(transaction=True)
def test_of_two_admins_who_decide_at_once_one_wins() -> None:
    policy_bootstrap()
    people = [
        Person.objects.create(name=n, email=f"{n}@example.org") for n in ("ada", "ben", "cyd")
    ]
    for person in people:
        person.role_assignments.create(role="admin")
    ada, ben, cyd = (proven(person) for person in people)
    draft = draft_create(actor=ada, rules=PolicyVersion.objects.get().rules)
    policy_propose(actor=ada, number=draft.number)
    start, outcomes = threading.Barrier(2), []

    def decide(actor: Principal, service: Any) -> None:
        start.wait()
        try:
            outcomes.append(service(actor=actor, number=draft.number, **_word(service)).state)
        except WrongState as error:
            outcomes.append(str(error.status))
        finally:
            connection.close()

    threads = [
        threading.Thread(target=decide, args=pair)
        for pair in ((ben, policy_approve), (cyd, policy_reject))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) in (["409", "active"], ["409", "rejected"])
    assert refreshed(draft).state in outcomes


def test_a_draft_of_rules_alone_keeps_the_tests_of_its_base(
    policy: PolicyVersion, ada: Principal
) -> None:
    draft = draft_create(actor=ada, rules=[*policy.rules, LET_VIEWERS_SET_GATES])
    assert draft.tests == policy.tests
    assert len(draft.tests) > 30


def test_removed_rules_and_tests_are_acknowledged_by_author_and_approver(
    policy: PolicyVersion, ada: Principal, ben: Principal
) -> None:
    gone = policy.tests[0]["name"]
    rule = policy.rules[-1]["id"]
    kept = [case for case in policy.tests[1:] if version_passes(policy.rules[:-1], case)]
    dropped = [case["name"] for case in policy.tests if case not in kept]
    draft = draft_create(actor=ada, rules=policy.rules[:-1], tests=kept)

    with pytest.raises(WrongState) as caught:
        policy_propose(actor=ada, number=draft.number)
    assert caught.value.code == "removals_not_acknowledged"
    assert caught.value.fields["rules_removed"] == [rule]
    assert gone in caught.value.fields["tests_removed"]
    assert refreshed(draft).state == PolicyState.DRAFT
    policy_propose(actor=ada, number=draft.number, acknowledge_removals=True)

    with pytest.raises(WrongState) as caught:
        policy_approve(actor=ben, number=draft.number)
    assert caught.value.code == "removals_not_acknowledged"
    assert refreshed(draft).state == PolicyState.PROPOSED
    policy_approve(actor=ben, number=draft.number, acknowledge_removals=True)

    events = AuditEvent.objects.filter(subject_type="policy", subject_id=str(draft.number))
    for action in ("policy:propose", "policy:activate"):
        data = opened_body(events.get(action=action))["data"]
        assert data["removed"] == {"rules": [rule], "tests": dropped}


def version_passes(rules: list[dict[str, Any]], case: dict[str, Any]) -> bool:
    """True if the test passes under these rules."""
    snapshot = PolicySnapshot.from_rules(1, rules)
    return not failed_results(run_cases(snapshot, parse_cases([case])))
