"""The life of a policy through the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from governance.audit.models import AuditEvent
from governance.people.models import Department, Person
from governance.policy.document import document_from_yaml
from governance.policy.models import PolicyVersion
from tests.unit.assay.api_support import Api, problem_of

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]

VIEWERS: dict[str, Any] = {
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
def ada(person: Callable[..., Person]) -> Api:
    return Api(person("Ada", "admin"))


@pytest.fixture
def ben(person: Callable[..., Person]) -> Api:
    return Api(person("Ben", "admin"))


def drafted(api: Api, **more: Any) -> Any:
    rules = [*PolicyVersion.objects.get(number=1).rules, VIEWERS]
    made = api.post("policy/versions", {"rules": rules, "tests": [CASE], **more})
    assert made.status_code == 201, made.content
    return made.body


def test_a_policy_is_drafted_proposed_and_approved_by_another_admin(ada: Api, ben: Api) -> None:
    draft = drafted(ada, note="Viewers set gates.")
    at = f"policy/versions/{draft['number']}"
    assert (draft["state"], draft["based_on"], draft["test_count"]) == ("draft", 1, 1)

    assert [row["passed"] for row in ada.get(f"{at}/tests").body] == [True]
    diff = ada.get(f"{at}/diff").body
    assert (diff["before"], [rule["id"] for rule in diff["added"]]) == (1, ["viewers-set-gates"])
    problem_of(ada.post(f"{at}/propose"), 409, "removals_not_acknowledged")
    seen = {"acknowledge_removals": True}
    assert ada.post(f"{at}/propose", seen).body["state"] == "proposed"
    problem_of(ada.post(f"{at}/approve"), 403, "separation_of_duties")
    problem_of(ben.post(f"{at}/approve"), 409, "removals_not_acknowledged")
    assert ben.post(f"{at}/approve", {"note": "Fine.", **seen}).body["state"] == "active"

    assert ada.get("policy").body["version"] == draft["number"]
    problem_of(ben.post(f"{at}/approve"), 409, "wrong_state")
    states = [(row["number"], row["state"]) for row in ada.get("policy/versions").body["results"]]
    assert states == [(2, "active"), (1, "superseded")]


def test_a_policy_goes_out_as_yaml_and_comes_back_the_same(ada: Api) -> None:
    draft = drafted(ada, note="Über alles: 18:00")
    text = ada.get(f"policy/versions/{draft['number']}/document").body["yaml"]
    again = ada.post("policy/versions", {"yaml": text}).body
    for member in ("rules", "tests", "note", "digest", "content_digest"):
        assert again[member] == draft[member]
    assert document_from_yaml(text).rules == draft["rules"]


def test_a_failing_test_keeps_a_draft_from_being_proposed(ada: Api) -> None:
    number = drafted(ada, tests=[CASE | {"expect": "deny"}])["number"]
    body = problem_of(ada.post(f"policy/versions/{number}/propose"), 409, "policy_tests_fail")
    assert "a viewer sets a gate" in body["detail"]
    assert body["errors"][0]["field"] == "tests.a viewer sets a gate"


def test_faults_are_named_by_field(ada: Api) -> None:
    wrong = {"rules": [VIEWERS | {"effect": "perhaps"}], "tests": [CASE | {"action": "fly"}]}
    errors = problem_of(ada.post("policy/versions", wrong), 422)["errors"]
    assert {"rules.0.effect", "tests.0.action"} <= {error["field"] for error in errors}
    for body, status in (
        ({}, 422),
        ({"rules": "x"}, 400),
        ({"rules": [3]}, 400),
        ({"yaml": "rules: ["}, 422),
        ({"yaml": "rules: []", "note": "x"}, 422),
        ({"rules": [], "state": "active"}, 400),
        ({"rules": [], "based_on": 77}, 422),
        ({"rules": [], "decided_by": 1}, 400),
    ):
        problem_of(ada.post("policy/versions", body), status)
    assert PolicyVersion.objects.count() == 1


def test_a_draft_changes_only_from_what_was_seen(ada: Api, ben: Api) -> None:
    draft = drafted(ada)
    at, seen = f"policy/versions/{draft['number']}", draft["content_digest"]
    changed = ben.patch(at, {"note": "Ben's", "content_digest": seen}).body
    assert (changed["note"], changed["rules"]) == ("Ben's", draft["rules"])
    problem_of(ada.patch(at, {"note": "Ada's", "content_digest": seen}), 409)
    assert ada.delete(at).status_code == 204
    assert ada.get(at).body["state"] == "withdrawn"
    problem_of(ada.delete(at), 409)


def test_a_proposal_is_rejected_with_a_reason_or_withdrawn(ada: Api, ben: Api) -> None:
    for path, api in (("reject", ben), ("withdraw", ada)):
        at = f"policy/versions/{drafted(ada)['number']}"
        ada.post(f"{at}/propose", {"acknowledge_removals": True})
        problem_of(api.post(f"{at}/{path}"), 400)
        assert api.post(f"{at}/{path}", {"reason": "Not so."}).status_code == 200
    assert ada.get("policy").body["version"] == 1


def test_a_dry_run_tells_what_would_flip(ada: Api) -> None:
    number = drafted(ada)["number"]
    rules = [
        rule for rule in PolicyVersion.objects.get(number=1).rules if rule["id"] != "admins-manage"
    ]
    stricter = ada.post("policy/versions", {"rules": rules}).body["number"]
    assert ada.get(f"policy/versions/{number}/replay").body["flips"] == 0
    body = ada.get(f"policy/versions/{stricter}/replay", last=50).body
    assert body["now_denied"] == body["flips"] > 0
    assert body["groups"][0]["rules_before"] == ["admins-manage"]
    problem_of(ada.get(f"policy/versions/{stricter}/replay", last=0), 400)


@pytest.mark.parametrize("number", ["99", "3000000000", "999999999999999999"])
def test_what_there_is_not_is_not_found(ada: Api, number: str) -> None:
    at = f"policy/versions/{number}"
    for path in ("", "/document", "/tests", "/diff", "/replay"):
        problem_of(ada.get(f"{at}{path}"), 404)
    for path in ("/propose", "/approve"):
        problem_of(ada.post(f"{at}{path}"), 404)
    problem_of(ada.patch(at, {"note": "x"}), 404)
    problem_of(ada.delete(at), 404)


def test_drafts_do_not_exist_for_those_who_only_read_the_policy(
    ada: Api, person: Callable[..., Person]
) -> None:
    at = f"policy/versions/{drafted(ada)['number']}"
    lea = Api(person("Lea", "lead@clinical"))
    assert [row["number"] for row in lea.get("policy/versions").body["results"]] == [1]
    for path in ("", "/document", "/tests", "/diff", "/replay"):
        problem_of(lea.get(f"{at}{path}"), 404)
    for path in ("propose", "approve"):
        problem_of(lea.post(f"{at}/{path}"), 404)
    problem_of(lea.post("policy/versions", {"rules": []}), 403)


def test_a_text_is_not_read_for_who_may_draft_no_policy(
    ada: Api, person: Callable[..., Person]
) -> None:
    """Reading a large one takes seconds, in which the process does nothing else."""
    at = f"policy/versions/{drafted(ada)['number']}"
    for name, role in (("Lea", "lead@clinical"), ("Otto", "operator")):
        other = Api(person(name, role))
        problem_of(other.post("policy/versions", {"yaml": "["}), 403)
        problem_of(other.patch(at, {"yaml": "["}), 403)
    problem_of(ada.post("policy/versions", {"yaml": "["}), 422)


def test_a_list_of_policies_takes_as_many_queries_for_many(ada: Api) -> None:
    drafted(ada)
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            ada.get("policy/versions")
        counts.append(len(queries))
        for _ in range(4):
            drafted(ada)
    assert counts[0] == counts[1]


def test_a_decision_is_explained_rule_by_rule(
    ada: Api, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    department("clinical")
    vera = person("Vera", "viewer@clinical")
    asked = {
        "principal": {"person": vera.pk},
        "action": "gate:set",
        "resource": {"type": "department", "reference": "clinical"},
    }
    body = ada.post("policy/explain", asked).body
    assert (body["allowed"], body["policy"]) == (False, 1)
    assert "Vera may not set gate" in body["reason"]
    traces = {rule["rule"]: rule for rule in body["rules"]}
    assert traces["developers-build"]["verdict"] == "other_actors"
    number = drafted(ada)["number"]
    body = ada.post("policy/explain", asked | {"policy": number}).body
    assert (body["allowed"], body["decisive"]) == (True, ["viewers-set-gates"])
    assert body["rules"][0]["rule"] == "viewers-set-gates"
    assert body["asked"]["resource"]["department"] == "clinical"


def test_an_event_of_a_refusal_is_explained_under_the_policy_of_then_and_of_now(
    ada: Api, ben: Api, person: Callable[..., Person], transactional_db: None
) -> None:
    vera = Api(person("Vera", "viewer@clinical"))
    problem_of(vera.post("policy/versions", {"rules": []}), 403)
    event = AuditEvent.objects.get(outcome="denied")
    body = ada.get(f"policy/explain/events/{event.pk}").body
    assert (body["recorded"], body["then"], body["now"]["allowed"]) == (False, None, False)
    rules = [
        *PolicyVersion.objects.get(number=1).rules,
        VIEWERS | {"actions": ["policy:draft"], "principal": {"kinds": ["person"]}},
    ]
    number = ada.post("policy/versions", {"rules": rules}).body["number"]
    ada.post(f"policy/versions/{number}/propose")
    ben.post(f"policy/versions/{number}/approve")
    body = ada.get(f"policy/explain/events/{event.pk}").body
    assert (body["then"]["policy"], body["then"]["allowed"]) == (1, False)
    assert (body["now"]["policy"], body["now"]["allowed"]) == (number, True)
    made = AuditEvent.objects.filter(action="person:create").first() or AuditEvent.objects.first()
    assert made is not None
    problem_of(vera.get(f"policy/explain/events/{event.pk}"), 404)
    problem_of(ada.get("policy/explain/events/987654321"), 404)


def test_who_can_names_the_people(ada: Api, ben: Api, person: Callable[..., Person]) -> None:
    person("Vera", "viewer@clinical")
    asked = {"action": "policy:decide", "resource": {"type": "policy"}}
    body = ada.post("policy/who-can", asked).body
    assert [row["name"] for row in body["people"]] == ["Ada", "Ben"]
    assert body["people"][0]["rules"] == ["admins-manage"]
    assert (body["people_total"], body["people_asked"], body["keys_total"]) == (2, 3, 0)


def test_only_those_who_may_explain_ask(person: Callable[..., Person]) -> None:
    lea = Api(person("Lea", "lead@clinical"))
    resource = {"type": "policy"}
    problem_of(lea.post("policy/who-can", {"action": "policy:decide", "resource": resource}), 403)
    asked = {"action": "gate:set", "resource": resource, "principal": {"roles": ["admin"]}}
    problem_of(lea.post("policy/explain", asked), 403)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"principal": {"roles": ["emperor"]}}, "principal.roles.0"),
        ({"principal": {"person": 1, "roles": ["admin"]}}, "principal"),
        ({"principal": {"kind": "key"}}, "principal"),
        ({"resource": {"type": "cheese"}}, "resource.type"),
        ({"resource": {"type": "gate", "reference": "1"}}, "resource"),
        ({"resource": {"type": "gate", "attributes": {"a": {"b": 1}}}}, "resource.attributes.a"),
        ({"context": {"tokens": 1.5}}, "tokens"),
        ({"action": "fly"}, "action"),
    ],
)
def test_a_malformed_question_is_refused_by_field(
    ada: Api, change: dict[str, Any], field: str
) -> None:
    asked = {"principal": {"roles": ["admin"]}, "action": "gate:set", "resource": {"type": "gate"}}
    errors = problem_of(ada.post("policy/explain", asked | change), 400)["errors"]
    assert field in {error["field"] for error in errors}


@pytest.mark.parametrize("field", ["rules", "tests"])
def test_of_a_list_that_is_too_long_no_member_is_looked_at(ada: Api, field: str) -> None:
    errors = problem_of(ada.post("policy/versions", {field: [0] * 2001}), 400)["errors"]
    assert [error["field"] for error in errors] == [field]


def test_of_too_many_roles_none_is_looked_at(ada: Api) -> None:
    question = {
        "principal": {"roles": [0] * 51},
        "action": "policy:view",
        "resource": {"type": "policy"},
    }
    errors = problem_of(ada.post("policy/explain", question), 400)["errors"]
    assert [error["field"] for error in errors] == ["principal.roles"]
