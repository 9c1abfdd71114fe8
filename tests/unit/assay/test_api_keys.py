"""Keys, quotas, people and the policy through the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from governance.keys.models import ApiKey
from governance.people.models import Department, Person
from governance.quotas.models import QuotaLimit
from tests.unit.assay.api_support import Api, problem_of

pytestmark = pytest.mark.usefixtures("policy", "redis")


@pytest.fixture
def admin(person: Callable[..., Person], department: Callable[..., Department]) -> Api:
    department("clinical")
    return Api(person("Ada", "admin"))


def new_key(api: Api, **more: Any) -> Any:
    return api.post("keys", {"department": "clinical", "name": "batch", **more})


def test_a_key_is_shown_once_and_never_again(admin: Api) -> None:
    made = new_key(admin, quotas={"requests_per_minute": 2}, expires_in_days=30)

    assert made.status_code == 201, made.content
    assert made.body["key"].startswith("assay_")
    assert made.headers["Cache-Control"] == "no-store"
    assert QuotaLimit.objects.get().limit == 2
    secret = made.body["key"].split("_")[2]
    assert secret not in admin.get("keys").content.decode()


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"quotas": {"requests": 2}}, "quotas.requests"),
        ({"quotas": {"requests_per_minute": "2"}}, "quotas.requests_per_minute"),
        ({"quotas": {"requests_per_minute": -2}}, "quotas.requests_per_minute"),
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"scopes": []}, "scopes"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_in_days": 100_000}, "expires_in_days"),
        ({"name": "a\nb"}, "name"),
    ],
)
def test_a_malformed_key_is_refused_by_field_and_not_made(
    admin: Api, more: dict[str, Any], field: str
) -> None:
    before = ApiKey.objects.count()

    errors = problem_of(new_key(admin, **more), 400)["errors"]

    assert field in {error["field"] for error in errors}
    assert ApiKey.objects.count() == before


def test_when_a_quota_is_refused_the_key_is_not_made(person: Callable[..., Person]) -> None:
    lead = Api(person("Lea", "lead@clinical"))
    before = ApiKey.objects.count()

    answer = new_key(lead, quotas={"requests_per_minute": 2})

    if answer.status_code != 201:
        problem_of(answer, 403)
        assert ApiKey.objects.count() == before


def test_a_quota_is_set_and_taken_away(admin: Api) -> None:
    limit = {"kind": "tokens_per_day", "department": "clinical", "limit": 1000}

    assert admin.post("quotas", limit).body["limit"] == 1000
    assert [row["department"] for row in admin.get("quotas").body["results"]] == ["clinical"]
    assert admin.post("quotas", {**limit, "limit": None}).status_code == 204
    assert not QuotaLimit.objects.exists()
    problem_of(admin.post("quotas", {"kind": "tokens_per_day", "limit": 1}), 422)
    problem_of(admin.post("quotas", {**limit, "key": 1}), 422)


def test_people_and_roles_are_managed(admin: Api) -> None:
    made = admin.post("people", {"email": "Devi@example.org", "name": "Devi"})
    assert (made.status_code, made.body["email"]) == (201, "devi@example.org")

    path = f"people/{made.body['id']}/roles"
    role = admin.post(path, {"role": "developer", "department": "clinical"})
    assert (role.status_code, role.body["department"]) == (201, "clinical")
    problem_of(admin.post(path, {"role": "developer", "department": "clinical"}), 409)
    problem_of(admin.post(path, {"role": "reviewer"}), 422)
    problem_of(admin.post(path, {"role": "lead", "department": "nowhere"}), 404)

    listed = admin.get("people").body["results"][0]
    assert [held["role"] for held in listed["roles"]] == ["developer"]
    assert admin.delete(f"{path}/{role.body['id']}").status_code == 204
    problem_of(admin.delete(f"{path}/{role.body['id']}"), 404)


def test_a_department_is_made_once(admin: Api) -> None:
    body = {"slug": "finance", "name": "Finance"}

    assert admin.post("departments", body).status_code == 201
    problem_of(admin.post("departments", body), 409)


def test_the_policy_in_force_can_be_read(admin: Api) -> None:
    policy = admin.get("policy").body

    assert policy["version"] == 1
    assert policy["rules"]


def test_key_revocation_is_for_good(admin: Api) -> None:
    made = new_key(admin).body

    assert admin.post(f"keys/{made['id']}/revoke").body["revoked_at"]
    problem_of(admin.post(f"keys/{made['id']}/revoke"), 409)
    problem_of(admin.post("keys/987654/revoke"), 404)


@pytest.mark.parametrize("field", ["allowed_deployments", "networks", "scopes"])
def test_of_a_list_that_is_too_long_no_member_is_looked_at(admin: Api, field: str) -> None:
    """Half a million empty names took a process twenty seconds."""
    errors = problem_of(new_key(admin, **{field: [""] * 1000}), 400)["errors"]
    assert [error["field"] for error in errors] == [field]
    assert "Must have at most" in errors[0]["detail"]
