"""The playground: a token that is worth something only in the session that it was made for."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis

from assay.gateway.access.reading import read_keys
from assay.portal.views.playground import playground_data
from governance import rowsecurity
from governance.audit.models import AuditEvent
from governance.keys import playground
from governance.keys.models import ApiKey, PlaygroundToken
from governance.keys.notices import key_notice
from governance.people.models import Person, RoleAssignment
from governance.people.sessions import sessions_end, sessions_purge
from governance.policy.services import SNAPSHOT_CHANNEL
from governance.principals import ActorRole, Principal, PrincipalKind
from governance.quotas.models import Price
from governance.usage.collector import collect_once
from governance.usage.models import UsageRecord
from registry.catalog import get_task
from registry.catalog.prompt import PromptDocument
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.sign_in_support import Visitor, with_password
from tests.unit.assay.test_gateway_keys import CHAT, GOOD, Endless
from tests.waiting import PATIENCE_S
from workers.deployments.models import Deployment

__all__ = ["stage"]

pytestmark = pytest.mark.sweep


class Browser:
    """A signed-in person's browser: it opens the playground and calls the gateway."""

    def __init__(self, stage: Stage, person: Person) -> None:
        self.stage = stage
        self.visitor = Visitor(address="127.0.0.1").sign_in(person)

    def open(self, **fields: str) -> Any:
        return self.visitor.post("/playground/token", **{"deployment": "writer", **fields})

    def token(self, **fields: str) -> str:
        answer = self.open(**fields)
        assert answer.status_code == 200, answer.content
        return str(answer.json()["token"])

    @property
    def cookie(self) -> str:
        name = settings.SESSION_COOKIE_NAME
        return f"theme=dark; {name}={self.visitor.client.cookies[name].value}"

    def ask(self, token: str, *, cookie: str | None = None, **body: Any) -> httpx.Response:
        headers = {"cookie": self.cookie if cookie is None else cookie}
        return self.stage.post(CHAT, token, json={**GOOD, **body}, headers=headers)


def member(stage: Stage, role: str = "developer", department: str = "engineering") -> Person:
    person = with_password(stage.person)
    RoleAssignment.objects.create(person=person, role=role, department=stage.department(department))
    return person


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_developer_tries_a_deployment_and_pays_and_is_recorded_as_themselves(
    stage: Stage,
) -> None:
    stage.deployment()
    browser = Browser(stage, member(stage))
    opened = browser.open()
    assert opened.headers["cache-control"] == "no-store"
    answer = browser.ask(opened.json()["token"])
    assert answer.status_code == 200
    (made,) = AuditEvent.objects.filter(action="playground_token:create")
    token = PlaygroundToken.objects.get()
    assert (made.actor_kind, made.actor_id) == ("person", str(stage.person.pk))
    assert (made.subject_id, made.department) == ("writer", "engineering")
    assert opened.json()["token"].split("_")[2].encode() not in bytes(made.canonical)
    stage.entries()
    collect_once(Redis.from_url(os.environ["REDIS_URL"]), consumer="test", block_ms=1)
    record = UsageRecord.objects.get()
    assert (record.department, record.key_public_id) == ("engineering", "playground")
    event = AuditEvent.objects.get(action="deployment:invoke")
    assert (event.actor_kind, event.actor_id) == ("person", str(stage.person.pk))
    assert json.loads(bytes(event.canonical))["data"]["token"] == token.public_id


def test_the_page_tells_the_use_and_the_cost_of_an_answer(stage: Stage) -> None:
    Price.objects.create(deployment="writer", prompt=2 * 10**6, completion=10**6)
    stage.deployment()
    browser = Browser(stage, member(stage, "lead"))
    answer = browser.ask(browser.token())
    request_id = answer.headers["x-request-id"]
    address = f"/playground/cost?request={request_id}"
    assert browser.visitor.get(address).json() == {}
    stage.entries()
    collect_once(Redis.from_url(os.environ["REDIS_URL"]), consumer="test", block_ms=1)
    usage = answer.json()["usage"]
    micro = 2 * usage["prompt_tokens"] + usage["completion_tokens"]
    known = browser.visitor.get(address).json()
    assert known == {
        "use": f"{usage['total_tokens']} tokens",
        "cost": f"0.{micro:06d}".rstrip("0") + " EUR",
    }
    # People of another department see neither.
    stranger = with_password(Person.objects.create(name="Mallory", email="mallory@example.org"))
    RoleAssignment.objects.create(
        person=stranger, role="lead", department=stage.department("finance")
    )
    assert Browser(stage, stranger).visitor.get(address).json() == {}
    assert browser.visitor.get("/playground/cost?request=\x00").json() == {}


@pytest.mark.parametrize(
    ("task", "system", "seed", "size"),
    [
        ("text-generation", True, True, False),
        ("text-to-image", False, True, True),
        ("embeddings", False, False, False),
        ("image-classification", False, False, False),
    ],
)
def test_the_page_has_the_fields_that_the_endpoint_takes(
    task: str, system: bool, seed: bool, size: bool
) -> None:
    asks = playground_data(get_task(task), "it")
    assert (asks["system"], asks["seed"], asks["size"]) == (system, seed, size)


def test_a_prompt_with_a_system_message_takes_no_other() -> None:
    own = PromptDocument(system="You are brief.")
    task = get_task("text-generation")
    assert playground_data(task, "it", prompt=own)["system"] is False
    assert playground_data(task, "it", prompt=PromptDocument())["system"] is True


def test_no_name_of_the_person_stands_in_the_log(stage: Stage) -> None:
    stage.deployment()
    Person.objects.update(name="Ottokar Quirin")
    stage.person.refresh_from_db()
    browser = Browser(stage, member(stage))
    token = browser.token()
    assert browser.ask(token).status_code == 200
    RoleAssignment.objects.create(person=stage.person, role="auditor")
    stage.notify()
    assert browser.ask(token).status_code == 403
    stage.entries(2)
    collect_once(Redis.from_url(os.environ["REDIS_URL"]), consumer="test", block_ms=1)
    events = AuditEvent.objects.filter(action__in=("deployment:invoke", "playground_token:create"))
    assert {event.outcome for event in events} == {"allowed", "denied"}
    assert all(b"Ottokar" not in bytes(event.canonical) for event in events)


def test_a_stolen_token_is_worth_nothing_without_its_sessions_cookie(stage: Stage) -> None:
    stage.deployment()
    person = member(stage)
    browser, elsewhere = Browser(stage, person), Browser(stage, person)
    token = browser.token()
    for cookie in ("", "sessionid=", f"sessionid={'a' * 32}", elsewhere.cookie):
        assert code(browser.ask(token, cookie=cookie)) == (401, "session_required")
    assert browser.ask(token).status_code == 200
    assert [entry.person for entry in stage.entries(5)] == [person.pk] * 5


def test_a_token_is_good_for_one_deployment_and_for_nothing_in_the_management_api(
    stage: Stage,
) -> None:
    stage.deployment("writer")
    stage.deployment("judge")
    browser = Browser(stage, member(stage))
    token = browser.token()
    assert code(browser.ask(token, model="judge")) == (403, "deployment_not_allowed")
    for path in ("/api/v1/models", "/api/v1/keys"):
        answer = browser.visitor.client.get(path, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code in (301, 401)
    assert ApiKey.objects.count() == 0
    assert b"playground" not in browser.visitor.get("/keys").content.split(b"<main")[1]


def test_gateways_hear_of_a_new_token(stage: Stage) -> None:
    """Unknown keys are looked up a few times a second, which strangers can use up."""
    stage.deployment()
    browser = Browser(stage, member(stage))
    with stage.redis.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(SNAPSHOT_CHANNEL)
        heard.get_message(timeout=PATIENCE_S)
        browser.token()
        notice = key_notice(PlaygroundToken.objects.get().public_id).encode()
        told = iter(lambda: heard.get_message(timeout=PATIENCE_S), None)
        assert any(each["data"] == notice for each in told)


def test_the_secret_is_kept_only_as_an_hmac(stage: Stage) -> None:
    stage.deployment()
    secret = Browser(stage, member(stage)).token().split("_")[2]
    row = PlaygroundToken.objects.values().get()
    assert secret not in str(row)
    assert secret.encode() not in bytes(row["secret_hmac"])


@pytest.mark.parametrize("end", ["sign out", "deactivate", "revoke", "epoch", "flush", "role"])
def test_a_token_ends_with_what_it_rests_on(stage: Stage, end: str) -> None:
    stage.deployment(behavior=Endless(stage))
    browser = Browser(stage, member(stage))
    token, cookie = browser.token(), browser.cookie
    headers = {"authorization": f"Bearer {token}", "cookie": cookie}
    body = {**GOOD, "stream": True}
    with httpx.stream(
        "POST", f"{stage.url}{CHAT}", json=body, headers=headers, timeout=PATIENCE_S
    ) as running:
        lines = running.iter_lines()
        assert "data:" in next(lines)
        if end == "sign out":
            assert browser.visitor.post("/sign-out").status_code == 302
        elif end == "deactivate":
            Person.objects.update(is_active=False)
            stage.notify()
        elif end == "revoke":
            sessions_end(person_id=stage.person.pk)
        elif end == "epoch":
            Person.objects.update(session_epoch=7)
            stage.notify()
        elif end == "flush":
            Session.objects.all().delete()
            stage.notify()
        else:
            RoleAssignment.objects.all().delete()
            stage.notify()
        assert '"error"' in [line for line in lines if line][-1]
    assert browser.ask(token, cookie=cookie).status_code == 401


def test_a_token_ends_with_a_session_that_someone_else_ends(stage: Stage) -> None:
    """A policy may let the lead of a department end sessions; tokens are their person's alone."""
    stage.deployment()
    browser = Browser(stage, member(stage))
    token = browser.token()
    held = frozenset({ActorRole("lead", "engineering")})
    lead = Principal(kind=PrincipalKind.PERSON, id="0", name="Lena", roles=held, person_id=0)
    with rowsecurity.scope(lead):
        sessions_end(person_id=stage.person.pk)
    assert not PlaygroundToken.objects.exists()
    assert browser.ask(token).status_code == 401


def test_the_policy_decides_about_the_person_at_each_request(stage: Stage) -> None:
    stage.deployment()
    browser = Browser(stage, member(stage))
    token = browser.token()
    RoleAssignment.objects.create(person=stage.person, role="auditor")
    stage.notify()
    refused = browser.ask(token)
    assert code(refused) == (403, "policy_denied")
    assert "auditors change nothing" in refused.text
    assert browser.open().status_code == 403


def test_a_token_ends_after_ten_minutes_and_is_tidied(stage: Stage) -> None:
    stage.deployment()
    browser = Browser(stage, member(stage))
    token = browser.token()
    then = timezone.now() - timedelta(minutes=11)
    PlaygroundToken.objects.update(created_at=then, expires_at=then + timedelta(minutes=10))
    stage.notify()
    assert browser.ask(token).status_code == 401
    sessions_purge()
    assert PlaygroundToken.objects.count() == 0


def test_tokens_of_one_person_are_capped(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playground, "TOKENS_MAX", 2)
    stage.deployment()
    browser = Browser(stage, member(stage))
    browser.token()
    browser.token()
    refused = browser.open()
    assert refused.status_code == 429
    assert "2 times within 10 minutes" in refused.json()["error"]
    assert PlaygroundToken.objects.count() == 2


@pytest.mark.parametrize(
    ("role", "department", "status"),
    # A viewer of the owning department knows of it, and is told that they may not use it.
    [("viewer", "engineering", 403), ("lead", "finance", 404), ("lead", "engineering", 200)],
)
def test_only_those_who_may_use_the_deployment_get_a_token(
    stage: Stage, role: str, department: str, status: int
) -> None:
    stage.deployment(visibility="department")
    browser = Browser(stage, member(stage, role, department))
    assert browser.open().status_code == status
    page = browser.visitor.get("/playground?deployment=writer").content.decode()
    assert ("writer is not serving, or you may not use it" in page) == (status != 200)
    address = f"/deployments/{Deployment.objects.get().pk}"
    shown = browser.visitor.get(address).content.decode()
    assert ("Try it" in shown) == (status == 200)
    assert (b"writer" in browser.visitor.get("/playground").content) == (status == 200)
    assert PlaygroundToken.objects.exists() == (status == 200)


def test_nothing_that_does_not_serve_is_opened(stage: Stage) -> None:
    browser = Browser(stage, member(stage))
    for name in ("nothing", "wr\x00iter", ""):
        answer = browser.open(deployment=name)
        assert answer.status_code == 404
        assert "does not serve" in answer.json()["error"]


def test_who_is_in_two_departments_chooses_the_one_that_pays(stage: Stage) -> None:
    stage.deployment(departments=("engineering", "finance"))
    person = member(stage)
    member(stage, "lead", "finance")
    member(stage, "viewer", "legal")
    stage.notify()
    browser = Browser(stage, person)
    unclear = browser.open()
    assert unclear.status_code == 400
    assert "engineering, finance" in unclear.json()["error"]
    assert browser.open(department="legal").status_code == 400
    assert browser.ask(browser.token(department="finance")).status_code == 200
    assert [entry.department for entry in stage.entries()] == ["finance"]


def test_a_department_pays_only_while_its_own_role_permits_the_use(stage: Stage) -> None:
    """Else a person who lost the role there goes on at its cost, by a role somewhere else."""
    stage.deployment(departments=("engineering", "finance"))
    person = member(stage)
    member(stage, "lead", "finance")
    stage.notify()
    browser = Browser(stage, person)
    token, other = browser.token(department="engineering"), browser.token(department="finance")
    assert browser.ask(token).status_code == 200
    person.role_assignments.filter(department__slug="engineering").update(role="viewer")
    stage.notify()
    assert code(browser.ask(token)) == (403, "policy_denied")
    assert browser.ask(other).status_code == 200


def test_a_token_with_the_cookie_of_another_persons_session(stage: Stage) -> None:
    stage.deployment()
    browser = Browser(stage, member(stage))
    mallory = with_password(Person.objects.create(name="Mallory", email="mallory@example.org"))
    RoleAssignment.objects.create(
        person=mallory, role="developer", department=stage.department("engineering")
    )
    other = Browser(stage, mallory)
    token = browser.token()
    assert code(other.ask(token)) == (401, "session_required")
    # Both cookies, in either order: the one that Django takes counts.
    for cookie in (f"{browser.cookie}; {other.cookie}", f"{other.cookie}; {browser.cookie}"):
        status = browser.ask(token, cookie=cookie).status_code
        assert status == (200 if cookie.endswith(browser.cookie) else 401)


def test_a_session_that_owes_a_second_factor_gets_no_token(stage: Stage, settings: Any) -> None:
    stage.deployment()
    settings.SECOND_FACTOR_ROLES = ["developer"]
    person = member(stage)
    visitor = Visitor(address="127.0.0.1")
    assert visitor.password(person).status_code == 302
    answer = visitor.post("/playground/token", deployment="writer")
    assert (answer.status_code, answer["Location"]) == (302, "/account/authenticator")
    assert not PlaygroundToken.objects.exists()


def test_tokens_made_at_the_same_time_are_capped_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playground, "TOKENS_MAX", 2)
    stage.deployment()
    browser = Browser(stage, member(stage))
    key = browser.visitor.client.session.session_key

    def one(_: int) -> int:
        client = Client(REMOTE_ADDR="127.0.0.1")
        client.cookies[settings.SESSION_COOKIE_NAME] = key
        try:
            form = {"deployment": "writer"}
            return client.post("/playground/token", form, secure=True).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(one, range(6)))
    assert sorted(statuses) == [200, 200, 429, 429, 429, 429]
    assert PlaygroundToken.objects.count() == 2


def test_a_request_is_held_to_the_budget_of_the_department_that_pays(stage: Stage) -> None:
    stage.deployment()
    stage.limit("requests_per_minute", 1)
    browser = Browser(stage, member(stage))
    token = browser.token()
    assert browser.ask(token).status_code == 200
    assert code(browser.ask(token)) == (429, "quota_exceeded")


def test_a_token_is_not_made_without_a_session_or_from_another_site(stage: Stage) -> None:
    stage.deployment()
    browser = Browser(stage, member(stage))
    assert Visitor().post("/playground/token", deployment="writer").status_code == 302
    assert browser.visitor.get("/playground/token").status_code == 405
    strict = browser.visitor.client
    strict.handler.enforce_csrf_checks = True
    assert browser.open().status_code == 403
    assert PlaygroundToken.objects.count() == 0


def test_a_reading_takes_as_many_queries_for_three_tokens_as_for_one(stage: Stage) -> None:
    stage.deployment(behavior=None)
    person = member(stage)
    queries = []
    for tokens in (1, 3):
        while PlaygroundToken.objects.count() < tokens:
            Browser(stage, person).token()
        with CaptureQueriesContext(connection) as captured:
            ids = PlaygroundToken.objects.values_list("public_id", flat=True)
            assert len(read_keys({}, list(ids))) == tokens
        queries.append(len(captured))
    assert queries[0] == queries[1]
