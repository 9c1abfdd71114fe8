"""Decisions need a second factor given within ten minutes: in the portal, the API, the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.internal.flows.login import record_authentication
from django.db import transaction
from django.http import HttpRequest
from django.test import Client, override_settings
from django.utils import timezone

from assay.accounts.freshness import session_proof
from governance.errors import NotPermitted
from governance.keys.models import ApiKey
from governance.keys.services import access_token_create
from governance.people.models import Person
from governance.people.proof import FRESH, proof_fresh, require_proof
from governance.people.selectors import principal_for_person
from governance.principals import Proof, service_principal
from governance.reviews.models import Decision
from tests.proofs import proven, signed_in
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company, tell_story
from tests.unit.assay.sign_in_support import (
    Visitor,
    give_passkey,
    give_totp,
    totp_now,
    with_password,
)
from tests.unit.audit_support import bodies

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


@pytest.fixture
def company(db: None) -> Company:
    with transaction.atomic():
        return tell_story()


@pytest.fixture
def carla(company: Company) -> Person:
    return with_password(company.carla)


def word(company: Company, **changes: str) -> dict[str, str]:
    digest = company.review_open.digest
    asked = {
        "verdict": "reject",
        "reason": "Not yet.",
        "digest": digest,
        "specialty": "compliance",
    }
    return {**asked, "specialty": "compliance", **changes}


def in_portal(visitor: Visitor, company: Company, **changes: str) -> Any:
    return visitor.post(f"/reviews/{company.review_open.pk}/decide", **word(company, **changes))


def by_api(api: Api, company: Company) -> Any:
    return api.post(f"releases/{company.waiting.pk}/decisions", word(company))


def unproven(person: Person) -> Api:
    return Api(token=access_token_create(person=person, name="laptop")[1])


@pytest.mark.parametrize(
    ("method", "age", "fresh"),
    [
        ("totp", timedelta(0), True),
        ("webauthn", FRESH - timedelta(seconds=5), True),
        ("recovery_codes", timedelta(seconds=-5), True),
        ("local", timedelta(0), True),
        ("totp", FRESH, False),
        ("totp", timedelta(minutes=-5), False),
        ("password", timedelta(0), False),
        ("sso", timedelta(0), False),
        ("", timedelta(0), False),
    ],
)
def test_what_is_a_fresh_proof(
    person: Callable[..., Person], method: str, age: timedelta, fresh: bool
) -> None:
    proof = Proof(method, timezone.now() - age)
    actor = principal_for_person(person("Carla"), proof=proof)
    assert proof_fresh(actor) is fresh
    if fresh:
        kept = require_proof(actor, "approving this")
        assert (kept.method, kept.at <= timezone.now()) == (method, True)
    else:
        with pytest.raises(NotPermitted, match="Approving this needs a second factor") as refused:
            require_proof(actor, "approving this")
        assert refused.value.code == "step_up_required"


def test_nobody_but_a_person_proves_anything(person: Callable[..., Person]) -> None:
    assert proof_fresh(proven(person("Carla")))
    assert not proof_fresh(service_principal("controller"))
    assert not proof_fresh(principal_for_person(person("Milo")))


def test_a_password_alone_decides_nothing_and_says_so_on_the_page(
    company: Company, carla: Person
) -> None:
    visitor = Visitor().sign_in(carla)
    page = visitor.get(f"/reviews/{company.review_open.pk}").content.decode()
    assert "A vote needs a second factor" in page
    assert in_portal(visitor, company).status_code == 403
    assert not Decision.objects.filter(reason="Not yet.").exists()
    assert in_portal(visitor, company, verdict="comment").status_code == 302


def test_a_vote_without_a_second_factor_asks_for_one_and_is_then_cast(
    company: Company, carla: Person
) -> None:
    visitor = Visitor().sign_in(carla)
    give_totp(carla)
    asked = in_portal(visitor, company)
    assert asked.status_code == 403
    page = asked.content.decode()
    assert "Verify your identity" in page
    assert '<input type="hidden" name="reason" value="Not yet.">' in page
    assert not Decision.objects.filter(reason="Not yet.").exists()

    assert in_portal(visitor, company, step_up="yes", code="000000").status_code == 401
    assert not Decision.objects.filter(reason="Not yet.").exists()
    code = totp_now(carla)
    assert in_portal(visitor, company, step_up="yes", code=code).status_code == 302
    decision = Decision.objects.get(reason="Not yet.")
    assert decision.proof_method == "totp"
    assert decision.proved_at is not None
    assert decision.proved_at <= decision.created_at
    (said,) = bodies(action="person:step_up")
    assert said["data"] == {"method": "totp"}
    voted = bodies(action="release:decide")[-1]["data"]
    assert voted["proof_method"] == "totp"
    assert voted["proved_at"][:16] == decision.proved_at.isoformat()[:16]
    assert "Not yet." not in json.dumps(dict(visitor.client.session))


def test_a_password_is_no_proof_even_where_there_is_no_second_factor(
    company: Company, carla: Person
) -> None:
    visitor = Visitor().sign_in(carla)
    assert "one-time link of a recovery" in visitor.get("/account/prove").content.decode()
    for given in ({"password": "correct horse battery staple"}, {"local": "yes"}, {"code": "1"}):
        answer = visitor.post("/account/prove", **given)
        assert answer.status_code == 403
    assert in_portal(visitor, company).status_code == 403


def test_a_passkey_proves_it(company: Company, carla: Person) -> None:
    visitor = Visitor().sign_in(carla)
    key = give_passkey(visitor)
    options = visitor.get("/account/confirm/passkey").json()
    assert visitor.post("/account/prove", credential=key.get(options)).status_code == 302
    assert in_portal(visitor, company).status_code == 302
    assert Decision.objects.get(reason="Not yet.").proof_method == "webauthn"


def test_a_proof_that_is_too_old_is_none(company: Company, carla: Person) -> None:
    visitor = Visitor()
    signed_in(visitor.client, carla, ago=FRESH + timedelta(seconds=1))
    assert in_portal(visitor, company).status_code == 403
    signed_in(visitor.client, carla, ago=FRESH - timedelta(seconds=30))
    assert in_portal(visitor, company).status_code == 302


@pytest.mark.parametrize("method", ["password", "socialaccount", "demonstration"])
def test_other_records_of_a_session_prove_nothing(carla: Person, rf: Any, method: str) -> None:
    client = Client()
    client.force_login(carla)
    request: HttpRequest = rf.get("/")
    request.user, request.session = carla, client.session
    record_authentication(request, carla, method)
    assert session_proof(request) is None
    record_authentication(request, carla, "mfa", id=1, type="totp")
    record_authentication(request, carla, method)
    proof = session_proof(request)
    assert proof is not None
    assert proof.method == "totp"
    assert time.time() - proof.at.timestamp() < 60


def test_a_session_of_somebody_else_lends_no_proof(
    company: Company, carla: Person, rf: Any
) -> None:
    client = signed_in(Client(), carla)
    request: HttpRequest = rf.get("/")
    request.user, request.session = company.milo, client.session
    assert session_proof(request) is None


@override_settings(DEMO=True)
def test_in_the_local_demonstration_a_click_stands_in_and_says_so(
    company: Company, carla: Person
) -> None:
    here: dict[str, Any] = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost"}
    client = Client(**here)
    client.post("/demo/sign-in", {"person": carla.pk})
    session = client.session
    session["account_authentication_methods"][-1]["at"] -= FRESH.total_seconds()
    session.save()
    review = f"/reviews/{company.review_open.pk}"
    assert client.post(f"{review}/decide", word(company)).status_code == 403
    assert "demonstration" in client.get("/account/prove").content.decode()
    assert client.post("/account/prove", {"local": "yes"}).status_code == 302
    assert client.post(f"{review}/decide", word(company)).status_code == 302
    assert Decision.objects.get(reason="Not yet.").proof_method == "local"


@override_settings(DEMO=True)
def test_the_click_holds_from_this_machine_only(company: Company, carla: Person) -> None:
    here: dict[str, Any] = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost"}
    client = Client(**here)
    client.post("/demo/sign-in", {"person": carla.pk})
    away = Client(REMOTE_ADDR="192.0.2.7", HTTP_HOST="localhost")
    away.cookies = client.cookies
    review = f"/reviews/{company.review_open.pk}"
    assert away.post("/account/prove", {"local": "yes"}).status_code == 403
    assert away.post(f"{review}/decide", word(company)).status_code == 403
    with override_settings(PRODUCTION=True):
        assert client.post("/account/prove", {"local": "yes"}).status_code == 403
        assert client.post(f"{review}/decide", word(company)).status_code == 403
    assert client.post(f"{review}/decide", word(company)).status_code == 302


def test_an_access_token_alone_decides_nothing_until_a_code_comes_with_it(
    company: Company, carla: Person
) -> None:
    api = unproven(carla)
    refused = problem_of(by_api(api, company), 403, "step_up_required")
    assert "auth/step-up" in refused["hint"]
    shown = api.get(f"releases/{company.waiting.pk}").body["review"]["why_not"]
    assert "second factor" in shown["reject"]
    assert shown["comment"] == ""

    problem_of(api.post("auth/step-up", {"code": "123456"}), 403, "second_factor_missing")
    give_totp(carla)
    problem_of(api.post("auth/step-up", {"code": "x"}), 401, "wrong_second_factor")
    code = totp_now(carla)
    answer = api.post("auth/step-up", {"code": code})
    assert answer.status_code == 200
    assert answer.body["method"] == "totp"
    # A code opens the door once, also for another token of the same person.
    problem_of(unproven(carla).post("auth/step-up", {"code": code}), 401, "wrong_second_factor")
    assert by_api(api, company).status_code == 201
    decision = Decision.objects.get(reason="Not yet.")
    assert decision.proof_method == "totp"
    assert ApiKey.objects.filter(proof_method="totp", proved_at=decision.proved_at).count() == 1


def test_a_proof_belongs_to_one_token(company: Company, carla: Person) -> None:
    give_totp(carla)
    first, second = unproven(carla), unproven(carla)
    assert first.post("auth/step-up", {"code": totp_now(carla)}).status_code == 200
    problem_of(by_api(second, company), 403, "step_up_required")
    ApiKey.objects.filter(proof_method="totp").update(proved_at=timezone.now() - FRESH)
    problem_of(by_api(first, company), 403, "step_up_required")


def test_a_sign_in_with_a_code_is_a_proof_and_one_without_is_none(
    company: Company, carla: Person
) -> None:
    body = {"email": carla.email, "password": "correct horse battery staple"}
    token = Api().post("auth/token", body).body["token"]
    problem_of(by_api(Api(token=token), company), 403, "step_up_required")
    give_totp(carla)
    token = Api().post("auth/token", {**body, "code": totp_now(carla)}).body["token"]
    assert by_api(Api(token=token), company).status_code == 201


def test_wrong_codes_are_counted_as_at_sign_in(company: Company, carla: Person) -> None:
    give_totp(carla)
    api = unproven(carla)
    for _ in range(10):
        problem_of(api.post("auth/step-up", {"code": "000000"}), 401, "wrong_second_factor")
    right = api.post("auth/step-up", {"code": totp_now(carla)})
    problem_of(right, 429, "too_many_attempts")


def test_keys_and_sessions_have_no_token_to_prove(company: Company, carla: Person) -> None:
    give_totp(carla)
    client = signed_in(Client(), carla)
    answer = client.post(
        "/api/v1/auth/step-up", {"code": totp_now(carla)}, content_type="application/json"
    )
    assert answer.status_code == 403
    assert "access token" in answer.json()["detail"]


def test_the_command_line_asks_for_the_code_and_sends_the_decision_again(
    company: Company,
    carla: Person,
    live_server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from assay.cli.client import Client as Caller
    from assay.cli.output import CliError

    give_totp(carla)
    _, token = access_token_create(person=carla, name="laptop")
    caller = Caller(live_server.url, token)
    path = f"releases/{company.waiting.pk}/decisions"
    with pytest.raises(CliError, match="needs a second factor"):
        caller.post(path, **word(company))
    asked = []

    def code(prompt: str) -> str:
        asked.append(prompt)
        return totp_now(carla)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer._click.termui.visible_prompt_func", code)
    assert caller.post(path, **word(company))["state"] == "rejected"
    assert len(asked) == 1
    assert Decision.objects.get(reason="Not yet.").proof_method == "totp"
