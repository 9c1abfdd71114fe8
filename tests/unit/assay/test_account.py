"""One's own account and sessions; and what an administrator does to somebody else's."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assay.accounts import crypto, freshness, middleware
from assay.accounts.devices import device_words
from governance.keys.models import ApiKey
from governance.people.models import Person
from governance.people.sessions import sessions_purge
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.sign_in_support import (
    PASSWORD,
    Visitor,
    code_of,
    give_passkey,
    give_totp,
    prove,
    totp_now,
    with_password,
)
from tests.unit.assay.test_portal_pages import inline_in
from tests.unit.audit_support import bodies

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]
NEW = "another horse, another battery"


@pytest.fixture
def ada(person: Callable[..., Person]) -> Person:
    return with_password(person("Ada", "admin"))


@pytest.fixture
def vera(person: Callable[..., Person]) -> Person:
    return with_password(person("Vera", "viewer@finance"))


@pytest.fixture
def lead(person: Callable[..., Person]) -> Person:
    return with_password(person("Fay", "lead@finance"))


def events(action: str) -> list[dict[str, Any]]:
    return bodies(action=action)


PAGES = (
    "/sign-in", "/account", "/account/confirm", "/account/authenticator",
)  # fmt: skip


def test_every_page_renders_with_nothing_inline(vera: Person) -> None:
    visitor = Visitor()
    pages = [visitor.get("/sign-in").content.decode()]
    visitor.sign_in(vera)
    give_totp(vera)
    prove(visitor, vera)
    give_passkey(visitor)
    pages += [visitor.get(path).content.decode() for path in PAGES[1:]]
    pages.append(visitor.post("/account/recovery-codes").content.decode())
    half = Visitor()
    half.password(vera)
    pages.append(half.get("/sign-in/second-factor").content.decode())

    assert [inline_in(page) for page in pages] == [[]] * len(pages)
    assert all("<h1" in page for page in pages)
    for page in pages:
        ids = re.findall(r'\sid="([^"]+)"', page)
        assert len(ids) == len(set(ids)), [name for name in ids if ids.count(name) > 1]


def test_the_account_page_costs_the_same_however_many_sessions_there_are(vera: Person) -> None:
    visitor = Visitor().sign_in(vera)
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert visitor.get("/account").status_code == 200
        counts.append(len(queries))
        for _ in range(5):
            Visitor().sign_in(vera)

    assert counts[0] == counts[1]
    assert counts[0] <= 27


def test_a_change_to_how_one_signs_in_needs_a_fresh_proof(
    vera: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor().sign_in(vera)
    monkeypatch.setattr(freshness, "FRESH_S", -1)

    for answer in (
        visitor.get("/account/authenticator"),
        visitor.post("/account/authenticator", code="1"),
        visitor.get("/account/passkeys/options"),
        visitor.post("/account/passkeys", name="x", credential="{}"),
        visitor.post("/account/password", current=PASSWORD, new=NEW),
    ):
        assert answer.status_code == 302
        assert answer["Location"].startswith("/account/confirm?next=")
    for answer in (
        visitor.post("/account/recovery-codes"),
        visitor.post("/account/factors/1/remove"),
        visitor.post("/account/tokens", name="x", days=7),
    ):
        assert answer.status_code == 403
        assert "Your input is kept" in answer.content.decode()
    assert not ApiKey.objects.exists()


def test_the_proof_is_the_password_or_with_a_second_factor_that(
    vera: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor().sign_in(vera)
    assert visitor.post("/account/confirm", password="wrong").status_code == 401
    answer = visitor.post("/account/confirm", password=PASSWORD, next="/account/authenticator")
    assert answer["Location"] == "/account/authenticator"

    give_totp(vera)
    refused = visitor.post("/account/confirm", password=PASSWORD)
    assert refused.status_code == 400
    assert visitor.post("/account/confirm", code="000000").status_code == 401
    assert visitor.post("/account/confirm", code=totp_now(vera)).status_code == 302

    key = give_passkey(visitor)
    options = visitor.get("/account/confirm/passkey").json()
    assert visitor.post("/account/confirm", credential=key.get(options)).status_code == 302


def test_an_authenticator_app_is_added_once_its_code_came_back(vera: Person) -> None:
    visitor = Visitor().sign_in(vera)
    page = visitor.get("/account/authenticator").content.decode()
    assert 'src="data:image/svg+xml;base64,' in page
    secret = crypto.decrypt(visitor.client.session["assay_totp_secret"])

    assert visitor.post("/account/authenticator", code="000000").status_code == 400
    assert not Authenticator.objects.exists()
    shown = visitor.post("/account/authenticator", code=code_of(secret))

    assert "are shown only now" in shown.content.decode()
    assert shown["Cache-Control"].startswith("max-age=0")
    assert events("person:add_factor")[0]["data"] == {"type": "totp"}
    assert visitor.post("/account/authenticator", code=code_of(secret)).status_code == 400
    assert Authenticator.objects.filter(type="totp").count() == 1


def test_with_the_last_factor_go_the_recovery_codes(vera: Person) -> None:
    visitor = Visitor().sign_in(vera)
    give_totp(vera)
    prove(visitor, vera)
    row = Authenticator.objects.get(type="totp")

    assert visitor.post(f"/account/factors/{row.pk}/remove").status_code == 302

    assert not Authenticator.objects.exists()
    assert events("person:remove_factor")[0]["data"]["type"] == "totp"
    assert Visitor().sign_in(vera)


def test_nobody_removes_somebody_elses_factor(vera: Person, ada: Person) -> None:
    give_totp(ada)
    row = Authenticator.objects.get(type="totp")

    assert Visitor().sign_in(vera).post(f"/account/factors/{row.pk}/remove").status_code == 404
    assert Authenticator.objects.filter(pk=row.pk).exists()


def test_recovery_codes_need_a_factor_to_stand_in_for(vera: Person) -> None:
    assert Visitor().sign_in(vera).post("/account/recovery-codes").status_code == 409


def test_a_new_password_ends_the_other_sessions_and_keeps_this_one(vera: Person) -> None:
    here, there = Visitor().sign_in(vera), Visitor().sign_in(vera)

    assert here.post("/account/password", current="wrong", new=NEW).status_code == 401
    assert here.post("/account/password", current=PASSWORD, new="short").status_code == 400
    assert here.post("/account/password", current=PASSWORD, new=NEW).status_code == 302

    assert here.is_in()
    assert not there.is_in()
    assert Visitor().password(vera).status_code == 401
    assert Visitor().password(vera, NEW).status_code == 302
    assert events("person:change_password")[0]["data"] == {"sessions_ended": 1}
    assert UserSession.objects.filter(session_key=here.client.session.session_key).exists()


def test_sessions_show_device_and_address(vera: Person) -> None:
    Visitor(address="203.0.113.4", agent="Mozilla/5.0 (iPhone) Safari/605").sign_in(vera)
    visitor = Visitor().sign_in(vera)

    page = visitor.get("/account").content.decode()

    assert "Firefox on Linux" in page
    assert "192.0.2.7" in page
    assert "Safari on iPhone" in page
    assert "203.0.113.4" in page
    assert page.count(">This session<") == 1


def test_a_session_is_ended_at_once(vera: Person) -> None:
    here, there = Visitor().sign_in(vera), Visitor().sign_in(vera)
    key = there.client.session.session_key
    row = UserSession.objects.get(session_key=key)

    assert here.post("/account/sessions/end", session=row.pk).status_code == 302

    assert not there.is_in()
    assert here.is_in()
    assert not Session.objects.filter(session_key=key).exists()
    assert events("session:revoke")[0]["data"]["address"] == "192.0.2.7"


def test_all_others_are_ended_at_once(vera: Person) -> None:
    here, others = Visitor().sign_in(vera), [Visitor().sign_in(vera) for _ in range(3)]

    here.post("/account/sessions/end", session="others")

    assert here.is_in()
    assert not any(other.is_in() for other in others)


@pytest.mark.parametrize("who", ["vera", "lead"])
def test_nobody_but_an_administrator_ends_somebody_elses(
    request: pytest.FixtureRequest, who: str, ada: Person, vera: Person, lead: Person
) -> None:
    visitor = Visitor().sign_in(request.getfixturevalue(who))
    victim = Visitor().sign_in(ada)
    row = UserSession.objects.get(user=ada)

    assert visitor.post("/account/sessions/end", session=row.pk).status_code == 404
    other = lead if who == "vera" else vera
    for path in ("sign-in", "sessions/end", "factors/reset"):
        method = visitor.get if path == "sign-in" else visitor.post
        fields = {} if path == "sign-in" else {"session": "all", "reason": "x"}
        assert method(f"/people/{ada.pk}/{path}", **fields).status_code == 404
        assert method(f"/people/{other.pk}/{path}", **fields).status_code == 404
    assert victim.is_in()


def test_an_administrator_sees_and_ends_somebodys_sessions(ada: Person, vera: Person) -> None:
    victim, also = Visitor().sign_in(vera), Visitor().sign_in(vera)
    admin = Visitor().sign_in(ada)
    page = admin.get(f"/people/{vera.pk}/sign-in").content.decode()
    assert page.count("Firefox on Linux") >= 2
    assert inline_in(page) == []
    row = UserSession.objects.filter(user=vera).earliest("pk")

    assert admin.post(f"/people/{vera.pk}/sessions/end", session=row.pk).status_code == 302
    assert not victim.is_in()
    assert also.is_in()
    assert admin.post(f"/people/{vera.pk}/sessions/end", session="all").status_code == 302
    assert not also.is_in()
    assert [event["actor_name"] for event in events("session:revoke")] == ["Ada", "Ada"]


def test_an_auditor_sees_sessions_and_ends_none(
    person: Callable[..., Person], vera: Person
) -> None:
    Visitor().sign_in(vera)
    auditor = Visitor().sign_in(with_password(person("Asha", "auditor")))

    page = auditor.get(f"/people/{vera.pk}/sign-in")

    assert page.status_code == 200
    assert "Sign out everywhere" not in page.content.decode()
    assert auditor.post(f"/people/{vera.pk}/sessions/end", session="all").status_code == 403


def test_an_administrator_resets_the_factors_of_who_lost_theirs(ada: Person, vera: Person) -> None:
    give_totp(vera)
    session = Visitor()
    session.password(vera)
    session.post("/sign-in/second-factor", code=totp_now(vera))
    admin = Visitor().proven(ada)

    assert admin.post(f"/people/{vera.pk}/factors/reset", reason="").status_code == 400
    answer = admin.post(f"/people/{vera.pk}/factors/reset", reason="Lost the phone; called back.")

    assert answer.status_code == 302
    assert not Authenticator.objects.filter(user=vera).exists()
    assert not session.is_in()
    (event,) = events("person:reset_factors")
    assert event["reason"] == "Lost the phone; called back."
    assert admin.post(f"/people/{vera.pk}/factors/reset", reason="again").status_code == 409


def test_an_administrator_does_not_reset_their_own_factors(ada: Person) -> None:
    admin = Visitor().proven(ada)
    give_totp(ada)

    answer = admin.post(f"/people/{ada.pk}/factors/reset", reason="An unlocked screen.")

    assert answer.status_code == 403
    assert "may not reset their own" in answer.content.decode()
    assert Authenticator.objects.filter(user=ada, type="totp").exists()


@pytest.mark.parametrize("named", ["x", "-1", "9" * 30, "9" * 5000, "\x00"])
def test_a_session_that_is_no_number_is_not_there(ada: Person, named: str) -> None:
    admin = Visitor().sign_in(ada)

    assert admin.post("/account/sessions/end", session=named).status_code == 404
    assert admin.post(f"/people/{ada.pk}/sessions/end", session=named).status_code == 404


def test_being_seen_is_noted_now_and_then_and_not_on_every_page(
    vera: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor().sign_in(vera)
    began = UserSession.objects.get(user=vera).last_seen_at
    visitor.get("/account")
    assert UserSession.objects.get(user=vera).last_seen_at == began

    monkeypatch.setattr(middleware, "GRAIN_S", 0)
    visitor.client.defaults["REMOTE_ADDR"] = "203.0.113.200"
    visitor.get("/account")

    row = UserSession.objects.get(user=vera)
    assert row.last_seen_at > began
    assert row.ip == "203.0.113.200"


def test_a_session_ends_twelve_hours_after_it_began_used_or_not(
    vera: Person, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor().sign_in(vera)
    key = visitor.client.session.session_key
    end = Session.objects.get(pk=key).expire_date
    monkeypatch.setattr(middleware, "GRAIN_S", 0)
    visitor.get("/account")

    moved = Session.objects.get(pk=key).expire_date - end
    assert abs(moved.total_seconds()) < 60
    left = (end - timezone.now()).total_seconds()
    assert settings.SESSION_COOKIE_AGE - 60 < left <= settings.SESSION_COOKIE_AGE


def test_an_access_token_is_made_shown_once_and_revoked(vera: Person, ada: Person) -> None:
    visitor = Visitor().sign_in(vera)

    page = visitor.post("/account/tokens", name="notebook", days=7)

    assert page.status_code == 201
    assert inline_in(page.content.decode()) == []
    token = re.search(r"ASSAY_TOKEN=(\S+)", page.content.decode())
    assert token is not None
    api = Api(token=token[1])
    assert api.get("me").body["name"] == "Vera"
    listed = visitor.get("/account").content.decode()
    assert "notebook" in listed
    assert token[1] not in listed

    key = ApiKey.objects.get(person=vera)
    assert Visitor().sign_in(ada).post(f"/account/tokens/{key.pk}/revoke").status_code == 404
    assert visitor.post(f"/account/tokens/{key.pk}/revoke").status_code == 302
    assert api.get("me").status_code == 401
    assert visitor.post("/account/tokens", name="x", days=4000).status_code == 400


def test_what_expired_is_purged(vera: Person) -> None:
    visitor, other = Visitor().sign_in(vera), Visitor().sign_in(vera)
    key = other.client.session.session_key
    Session.objects.filter(pk=key).update(expire_date=timezone.now() - timedelta(seconds=1))

    assert sessions_purge() == 1

    assert visitor.is_in()
    assert [row.session_key for row in UserSession.objects.all()] == [
        visitor.client.session.session_key
    ]


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("", "an unknown device"),
        ("curl/8.1", "curl"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/140 Safari/537 Edg/140", "Edge on Windows"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 15_0) Chrome/140 Safari/537", "Chrome on macOS"),
    ],
)
def test_a_device_is_named_in_a_few_words(agent: str, words: str) -> None:
    assert device_words(agent) == words


def test_the_api_lists_and_ends_sessions_like_the_portal(ada: Person, vera: Person) -> None:
    victim = Visitor().sign_in(vera)
    Visitor().sign_in(ada)
    own, admin = Api(vera), Api(ada)

    (mine,) = own.get("sessions").body["results"]
    assert (mine["person"]["name"], mine["address"]) == ("Vera", "192.0.2.7")
    assert mine["device"] == "Firefox on Linux"
    assert len(admin.get("sessions").body["results"]) == 2
    theirs = UserSession.objects.get(user=ada)
    problem_of(own.delete(f"sessions/{theirs.pk}"), 404)
    assert admin.delete(f"sessions/{mine['id']}").status_code == 204
    assert not victim.is_in()
