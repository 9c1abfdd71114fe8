"""Admission to the API, and the messages of a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from governance.audit.models import AuditEvent
from governance.keys import services
from governance.keys.models import ApiKey
from governance.keys.services import key_create, key_revoke
from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from tests.unit.assay.api_support import Api, decoded, problem_of

PASSWORD = "correct horse battery staple"

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]


@pytest.fixture
def ada(person: Callable[..., Person]) -> Person:
    made = person("Ada", "admin")
    made.set_password(PASSWORD)
    made.save()
    return made


def test_a_password_is_exchanged_for_a_token_that_works(ada: Person) -> None:
    answer = Api().post("auth/token", {"email": "Ada@example.org", "password": PASSWORD})

    assert answer.status_code == 201
    assert set(answer.body) == {"token", "expires_at"}
    assert answer.headers["Cache-Control"] == "no-store"
    me = Api(token=answer.body["token"]).get("me").body
    assert (me["name"], me["kind"], me["scopes"]) == ("Ada", "person", None)
    assert me["roles"] == [{"role": "admin", "department": None, "specialty": ""}]
    assert AuditEvent.objects.filter(action="person:sign_in", outcome="allowed").exists()


def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(ada: Person) -> None:
    wrong = Api().post("auth/token", {"email": ada.email, "password": "not the password"})
    unknown = Api().post("auth/token", {"email": "no@example.org", "password": PASSWORD})

    first, second = problem_of(wrong, 401), problem_of(unknown, 401)
    assert first | {"request_id": ""} == second | {"request_id": ""}
    assert AuditEvent.objects.filter(action="person:sign_in", outcome="denied").count() == 2


def test_without_a_credential_everything_is_401() -> None:
    answer = Api().get("models")

    problem_of(answer, 401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer nonsense",
        "Bearer assay_a_b_c",
        "Bearer " + "x" * 5000,
        "Bearer ü",
    ],
)
def test_a_malformed_credential_is_401(header: str) -> None:
    answer = decoded(Client().get("/api/v1/me", headers={"authorization": header}))

    problem_of(answer, 401)


def test_a_revoked_key_is_dead_at_once(ada: Person, department: Callable[..., Department]) -> None:
    admin = Api(ada)
    made = admin.post("keys", {"department": department("clinical").slug, "name": "batch"}).body
    key = Api(token=made["key"])
    assert key.get("me").body["kind"] == "key"

    key_revoke(actor=principal_for_person(ada), key_id=made["id"])

    problem_of(key.get("me"), 401, "invalid_key")


def test_a_department_key_may_not_manage_without_the_scope(
    ada: Person, department: Callable[..., Department]
) -> None:
    from datetime import timedelta

    from django.utils import timezone

    _, secret = key_create(
        actor=principal_for_person(ada),
        department=department("clinical"),
        name="app",
        scopes=["deployment:invoke"],
        expires_at=timezone.now() + timedelta(days=1),
    )
    key = Api(token=secret)
    before = ApiKey.objects.count()

    refused = key.post("keys", {"department": "clinical", "name": "more"})

    assert refused.status_code in {403, 404}
    assert key.get("jobs").body["results"] == []
    assert ApiKey.objects.count() == before


def test_a_session_reads_and_needs_the_csrf_token_to_write(ada: Person) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)

    assert client.get("/api/v1/me").status_code == 200
    refused = decoded(
        client.post(
            "/api/v1/departments", {"slug": "x1", "name": "X"}, content_type="application/json"
        )
    )
    problem_of(refused, 403, "csrf_failed")
    assert not Department.objects.exists()


def test_an_inactive_person_has_no_session(ada: Person) -> None:
    client = Client()
    client.force_login(ada)
    Person.objects.update(is_active=False)

    problem_of(decoded(client.get("/api/v1/me")), 401)


@pytest.mark.parametrize("path", ["nothing", "models/a/b/c", "jobs/7", "versions/x", "versions/0"])
def test_an_unknown_address_is_a_problem_in_json(ada: Person, path: str) -> None:
    problem_of(Api(ada).get(path), 404, "not_found")


def test_a_method_that_is_not_allowed_is_a_problem(ada: Person) -> None:
    answer = Api(ada).delete("models")

    problem_of(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]


def test_an_unknown_or_repeated_parameter_is_refused_by_name(ada: Person) -> None:
    api = Api(ada)

    assert problem_of(api.get("jobs", stat="queued"), 400)["errors"][0]["field"] == "stat"
    repeated = problem_of(api.get("jobs", state=["queued", "running"]), 400)
    assert repeated["errors"][0]["field"] == "state"


@pytest.mark.parametrize("size", ["0", "101", "-1", "x", "1e9", "٣"])
def test_a_page_size_out_of_bounds_is_refused(ada: Person, size: str) -> None:
    problem_of(Api(ada).get("people", page_size=size), 400, "invalid_input")


@pytest.mark.parametrize(
    "cursor", ["x", "cD1hYmM=", "cD0yMDI2", "%00", "cD05OTk5OTk5OTk5OTk5OTk5OTk5OTk5"]
)
@pytest.mark.parametrize("path", ["people", "jobs"])
def test_a_cursor_that_is_not_ours_is_refused(ada: Person, path: str, cursor: str) -> None:
    answer: Any = Api(ada).get(path, cursor=cursor)

    assert answer.status_code in {200, 400}, answer.content
    if answer.status_code == 400:
        problem_of(answer, 400, "invalid_input")


def test_pages_follow_one_another_without_gaps(ada: Person, person: Callable[..., Person]) -> None:
    for number in range(7):
        person(f"Person {number}")
    api = Api(ada)
    names, page = [], api.get("people", page_size="3").body

    while True:
        names += [row["name"] for row in page["results"]]
        if page["next"] is None:
            break
        page = api.get("people?" + page["next"].partition("?")[2]).body

    assert names == [*(f"Person {number}" for number in range(6, -1, -1)), "Ada"]
    assert page["previous"] is not None


def test_a_sign_in_beyond_the_most_tokens_is_refused_with_what_to_do(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "TOKENS_MAX", 1)
    given = {"email": ada.email, "password": PASSWORD}
    assert Api().post("auth/token", given).status_code == 201
    problem = problem_of(Api().post("auth/token", given), 409, "too_many_tokens")
    assert "Revoke one" in problem["hint"]
