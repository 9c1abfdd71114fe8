"""Denials on every surface when the policy is missing, unreadable or fails."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from governance.errors import DomainError, NotFound
from governance.people.selectors import principal_for_person
from governance.permissions import Action
from governance.policy.engine import PolicySnapshot, Resource, decide
from governance.policy.models import PolicyVersion
from governance.policy.selectors import visible_to
from governance.policy.services import authorize, policy_digest
from registry.versions.models import Model
from tests.abuse.company import browser, caller
from tests.abuse.surface import JSON, said
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.portal_data import Company

__all__ = ["stage"]

CHAT = "/v1/chat/completions"
GOOD = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}]}


def forbid(*conditions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A rule that is about everybody, and whose conditions may not be possible to evaluate."""
    return {
        "id": "mallory", "effect": "forbid", "description": "never on a bad day",
        "principal": {"kinds": ["person", "key"]}, "actions": ["model:view"],
        "conditions": list(conditions), **changes,
    }  # fmt: skip


# Each cannot be evaluated on a model.
IMPOSSIBLE = (
    {"attribute": "not_stated", "operator": "eq", "value": "x"},
    {"attribute": "context.lifetime_days", "operator": "lte", "value": 5},
    {"attribute": "shared", "operator": "lte", "value": 5},
    {"attribute": "shared", "operator": "contains", "value": "x"},
    {"attribute": "department", "operator": "contains", "value": "x"},
)


def tamper(**changes: Any) -> None:
    """Change the policy in force as the database's owner could, past services and guards."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE governance_policyversion DISABLE TRIGGER USER")
        PolicyVersion.objects.filter(number=1).update(**changes)
        cursor.execute("ALTER TABLE governance_policyversion ENABLE TRIGGER USER")


def put_in_force(rules: list[dict[str, Any]]) -> None:
    tamper(rules=rules, digest=policy_digest(rules))


def rules_now() -> list[dict[str, Any]]:
    return copy.deepcopy(PolicyVersion.objects.get(number=1).rules)


@pytest.mark.parametrize("condition", IMPOSSIBLE, ids=lambda each: str(list(each.values())))
def test_a_forbid_that_errors_denies(company: Company, condition: dict[str, Any]) -> None:
    """Though every permit holds: in a single decision, in the list, and over HTTP."""
    lead = principal_for_person(company.enzo)
    assert visible_to(lead, Action.MODEL_VIEW, Model.objects.all(), resource_type="model").exists()
    put_in_force([*rules_now(), forbid(condition)])
    resource = Resource(
        "model", "1", "docstring-writer", "engineering", {"shared": True, "owner": None}
    )
    snapshot = PolicySnapshot.from_rules(1, rules_now())
    verdict = decide(snapshot, lead, Action.MODEL_VIEW, resource)
    assert not verdict.allowed
    assert "mallory" in verdict.rules
    with pytest.raises(NotFound):
        authorize(actor=lead, action=Action.MODEL_VIEW, resource=resource)
    seen = visible_to(lead, Action.MODEL_VIEW, Model.objects.all(), resource_type="model")
    assert not seen.exists()
    client = caller(company, "an admin")
    assert client.get("/api/v1/models").json()["results"] == []
    assert client.get("/api/v1/models/docstring-writer").status_code == 404


def test_a_permit_that_errors_does_not_permit(company: Company) -> None:
    """Nor does it let the other permits through."""
    put_in_force([*rules_now(), forbid(IMPOSSIBLE[0], effect="permit")])
    client = caller(company, "an admin")
    assert client.get("/api/v1/models/docstring-writer").status_code == 404


def test_without_a_policy_nobody_does_anything(company: Company) -> None:
    """Not even the admin who could put one in force through us; only whoever runs the server."""
    admin, page = caller(company, "an admin"), browser(company, "an admin")
    tamper(state="superseded")
    for path in ("models", "keys", "people", "audit/events", "releases"):
        answer = admin.get(f"/api/v1/{path}")
        assert answer.status_code == 403 or answer.json()["results"] == [], path
    body = {"slug": "mine", "name": "Mine"}
    assert admin.post("/api/v1/departments", body, content_type=JSON).status_code == 403
    assert page.get("/models/docstring-writer").status_code in {403, 404}
    assert page.get("/").status_code == 200


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [{"id": "x"}],
        "all of them",
        [{"id": "everything", "effect": "allow", "actions": ["*"]}],
        None,
    ],
    ids=["none", "half a rule", "text", "another language", "null"],
)
def test_a_policy_that_cannot_be_read_permits_nothing(company: Company, rules: Any) -> None:
    """A row that somebody damaged past the services."""
    client = caller(company, "an admin")
    put_in_force(rules if rules is not None else [None])
    for path in ("models", "keys", "people"):
        answer = client.get(f"/api/v1/{path}")
        assert answer.status_code >= 400 or answer.json()["results"] == [], path
    answer = client.post("/api/v1/departments", {"slug": "mine", "name": "M"}, content_type=JSON)
    assert answer.status_code >= 400
    assert "Traceback" not in said(answer)


@pytest.fixture
def no_policy_store(company: Company) -> Iterator[Company]:
    """PostgreSQL answers everything but questions about the policy."""

    def unless_policy(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "governance_policyversion" in sql:
            raise OperationalError("the server closed the connection unexpectedly")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(unless_policy):
        yield company


def test_without_the_policy_store_the_api_is_unavailable(no_policy_store: Company) -> None:
    client = caller(no_policy_store, "an admin")
    for method, path in (
        ("get", "models"), ("get", "models/docstring-writer"), ("get", "audit/events"),
        ("get", "people"), ("post", "departments"), ("post", "keys"),
    ):  # fmt: skip
        body = {"slug": "mine", "name": "m", "department": "engineering"}
        if path == "departments":
            del body["department"]
        elif path == "keys":
            del body["slug"]
        options = {"data": body, "content_type": JSON} if method == "post" else {}
        answer = getattr(client, method)(f"/api/v1/{path}", **options)
        assert answer.status_code == 503, path
        assert int(answer.headers["Retry-After"]) >= 1
        assert "governance_policyversion" not in said(answer)


def test_without_the_policy_store_no_page_shows_anything(no_policy_store: Company) -> None:
    client = browser(no_policy_store, "an admin")
    for path in ("/", "/models", "/models/docstring-writer", "/audit", "/people"):
        answer = client.get(path)
        assert answer.status_code in {500, 503}, path
        assert "docstring-writer" not in said(answer).replace("/models/docstring-writer", "")


def test_without_the_policy_store_no_service_acts(no_policy_store: Company) -> None:
    actor = principal_for_person(no_policy_store.ada)
    with pytest.raises((OperationalError, DomainError)):
        authorize(actor=actor, action=Action.DEPARTMENT_CREATE, resource=Resource("department"))


def test_the_gateway_denies_on_a_forbid_that_errors(stage: Stage) -> None:
    """Every permit holds, and one forbid asks for what no request states."""
    stage.deployment()
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    condition = {"attribute": "phase_of_the_moon", "operator": "eq", "value": "full"}
    put_in_force([*rules_now(), forbid(condition, actions=["deployment:invoke"])])
    stage.notify()
    answer = stage.post(CHAT, token, json=GOOD)
    assert answer.status_code == 403
    assert len(stage.responders[0].requests) == 1
    assert stage.entries(2)[-1].rules == ["mallory"]


def test_the_gateway_lets_nothing_through_without_a_policy(stage: Stage) -> None:
    stage.deployment()
    token = stage.key()
    tamper(state="superseded")
    stage.notify()
    assert stage.post(CHAT, token, json=GOOD).status_code in {403, 404}
    assert stage.responders[0].requests == []


def test_a_damaged_policy_stops_the_gateway_when_its_copy_is_too_old(
    stage: Stage, settings: Any
) -> None:
    """It goes on with what it last read for its time to live, and then answers 503."""
    stage.deployment()
    token = stage.key()
    put_in_force([{"id": "half a rule"}])
    settings.GATEWAY_SNAPSHOT_TTL_S = 0
    assert stage.post(CHAT, token, json=GOOD).status_code == 503
    settings.GATEWAY_SNAPSHOT_TTL_S = 5


def test_a_stranger_learns_nothing_from_an_outage(no_policy_store: Company) -> None:
    answer = Client(raise_request_exception=False).get("/api/v1/models")
    assert answer.status_code == 401
