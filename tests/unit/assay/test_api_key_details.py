"""A key's details, its rotation, and reports of leaked keys, through the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from governance.keys import leaks
from governance.keys.models import ApiKey
from governance.keys.tokens import format_token, mint
from governance.people.models import Department, Person
from governance.quotas.models import QuotaLimit
from tests.unit.assay.api_support import Api, problem_of

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]

DETAILS: dict[str, Any] = {
    "purpose": "Sorting letters.",
    "allowed_deployments": ["writer"],
    "networks": ["0.0.0.0/0", "::/0"],
}


@pytest.fixture
def lead(person: Callable[..., Person], department: Callable[..., Department]) -> Api:
    department("clinical")
    return Api(person("Lea", "lead@clinical"))


def new_key(api: Api, **more: Any) -> Any:
    made = api.post("keys", {"department": "clinical", "name": "batch", **more})
    assert made.status_code == 201, made.content
    return made.body


def test_a_key_says_what_narrows_it_and_who_answers_for_it(
    lead: Api, person: Callable[..., Person]
) -> None:
    vera = person("Vera", "viewer@clinical")
    made = new_key(lead, **DETAILS, owner=vera.pk)
    assert made["owner"] == {"id": vera.pk, "name": "Vera"}
    assert made["state"] == "active"
    shown = lead.get(f"keys/{made['id']}").body
    assert {name: shown[name] for name in DETAILS} == DETAILS
    assert "key" not in shown
    assert shown["limits"] == []


def test_a_key_shows_every_limit_that_binds_it_the_widest_first(lead: Api) -> None:
    made = new_key(lead)
    key = ApiKey.objects.get(pk=made["id"])
    QuotaLimit.objects.create(api_key=key, kind="requests_per_minute", limit=5)
    QuotaLimit.objects.create(department=key.department, kind="tokens_per_day", limit=900)
    successor = lead.post(f"keys/{made['id']}/rotate").body["id"]
    for each in (made["id"], successor):
        limits = lead.get(f"keys/{each}").body["limits"]
        assert [limit["kind"] for limit in limits] == ["tokens_per_day", "requests_per_minute"]


def test_a_keys_details_change_and_what_is_not_given_stays(lead: Api) -> None:
    made = new_key(lead, **DETAILS)
    changed = lead.patch(f"keys/{made['id']}", {"networks": ["10.0.0.0/8"], "name": "nightly"})
    assert changed.status_code == 200, changed.content
    assert changed.body["networks"] == ["10.0.0.0/8"]
    assert (changed.body["name"], changed.body["purpose"]) == ("nightly", "Sorting letters.")
    assert changed.body["allowed_deployments"] == ["writer"]
    emptied = lead.patch(f"keys/{made['id']}", {"networks": [], "purpose": ""}).body
    assert (emptied["networks"], emptied["purpose"]) == ([], "")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"networks": ["10.0.0.1/8"]}, "networks"),
        ({"networks": ["x"] * 33}, "networks"),
        ({"networks": "10.0.0.0/8"}, "networks"),
        ({"allowed_deployments": ["a b"]}, "allowed_deployments"),
        ({"purpose": "a\nb"}, "purpose"),
        ({"purpose": "x" * 301}, "purpose"),
        ({"scopes": ["key:create"]}, "scopes"),
        ({"department": "finance"}, "department"),
        ({"expires_in_days": 3}, "expires_in_days"),
        ({"revoked_at": None}, "revoked_at"),
    ],
)
def test_a_change_that_is_out_of_bounds_names_its_field(
    lead: Api, more: dict[str, Any], field: str
) -> None:
    made = new_key(lead)
    before = ApiKey.objects.filter(pk=made["id"]).values().get()
    problem = problem_of(lead.patch(f"keys/{made['id']}", more), 400)
    assert field in {error["field"].split(".")[0] for error in problem["errors"]}
    after = ApiKey.objects.filter(pk=made["id"]).values().get()
    assert after == before


def test_an_owner_must_be_a_member_and_known_to_the_caller(
    lead: Api, person: Callable[..., Person]
) -> None:
    stranger = person("Fay", "lead@finance")
    body = {"department": "clinical", "name": "batch", "owner": stranger.pk}
    problem_of(lead.post("keys", body), 404)
    made = new_key(lead)
    problem_of(lead.patch(f"keys/{made['id']}", {"owner": stranger.pk}), 404)


def test_a_dead_key_cannot_be_changed(lead: Api) -> None:
    made = new_key(lead)
    lead.post(f"keys/{made['id']}/revoke")
    problem_of(lead.patch(f"keys/{made['id']}", {"purpose": "x"}), 409)


def test_who_answers_for_a_key_may_not_widen_it(lead: Api, person: Callable[..., Person]) -> None:
    vera = person("Vera", "viewer@clinical")
    made = new_key(lead, owner=vera.pk)
    api = Api(vera)
    assert api.get(f"keys/{made['id']}").status_code == 200
    problem_of(api.patch(f"keys/{made['id']}", {"networks": []}), 403)
    rotated = api.post(f"keys/{made['id']}/rotate", {"overlap_hours": 0})
    assert rotated.status_code == 201


def test_a_rotation_shows_the_new_secret_once_and_the_pair_as_a_pair(lead: Api) -> None:
    made = new_key(lead, **DETAILS)
    answer = lead.post(f"keys/{made['id']}/rotate", {"overlap_hours": 2, "expires_in_days": 10})
    assert answer.status_code == 201, answer.content
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.body["key"].startswith("assay_")
    assert answer.body["rotated_from"] == made["id"]
    assert {name: answer.body[name] for name in DETAILS} == DETAILS
    listed = {key["id"]: key for key in lead.get("keys").body["results"] if key["department"]}
    old, new = listed[made["id"]], listed[answer.body["id"]]
    assert (old["state"], old["successor"]) == ("retiring", new["id"])
    assert (new["state"], new["successor"]) == ("active", None)
    assert answer.body["key"].split("_")[2] not in lead.get("keys").content.decode()
    for token in (made["key"], answer.body["key"]):
        assert Api(token=token).get("me").status_code == 200
    problem_of(lead.post(f"keys/{made['id']}/rotate"), 409)
    problem_of(lead.post(f"keys/{new['id']}/rotate", {"overlap_hours": 721}), 400)


def test_no_key_outlives_what_the_policy_says(lead: Api) -> None:
    body = {"department": "clinical", "name": "batch", "expires_in_days": 367}
    problem = problem_of(lead.post("keys", body), 403)
    assert "a key lives 366 days at most" in problem["detail"]


def test_anybody_may_report_a_leaked_key_and_learns_nothing(lead: Api) -> None:
    made = new_key(lead)
    stranger = Api()
    answers = [
        stranger.post("keys/leaked", {"token": token})
        for token in (made["key"], made["key"], format_token(*mint()), "nonsense")
    ]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    problem_of(Api(token=made["key"]).get("me"), 401)
    shown = lead.get(f"keys/{made['id']}").body
    assert (shown["state"], shown["revoked_reason"]) == ("revoked", "Reported as leaked")


@pytest.mark.parametrize(
    "body", [{}, {"token": ""}, {"token": 5}, {"token": "x" * 257}, {"token": "a", "b": 1}, []]
)
def test_a_report_has_a_form(lead: Api, body: Any) -> None:
    problem_of(Api().post("keys/leaked", body), 400)


def test_reports_are_limited(lead: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PER_ADDRESS", 1)
    made = new_key(lead)
    assert Api().post("keys/leaked", {"token": format_token(*mint())}).status_code == 202
    refused = Api().post("keys/leaked", {"token": made["key"]})
    problem_of(refused, 429, "too_many_reports")
    assert int(refused.headers["Retry-After"]) > 0
    assert Api(token=made["key"]).get("me").status_code == 200


def test_a_token_in_the_address_is_not_looked_at(lead: Api) -> None:
    made = new_key(lead)
    address = f"/api/v1/keys/leaked?token={made['key']}"
    answer = Client().post(address, "{}", content_type="application/json")
    assert answer.status_code == 400
    assert Api(token=made["key"]).get("me").status_code == 200
