"""Single sign-on against a real OpenID Connect provider, started here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from allauth.socialaccount.models import SocialAccount, SocialToken
from oidc_provider_mock import run_server_in_thread

from governance.audit.models import AuditEvent
from governance.people.groups import group_mapping_create
from governance.people.models import Department, Person
from governance.people.services import person_deactivate
from tests.abuse.test_kept_input import verified
from tests.proofs import proven
from tests.unit.assay.sign_in_support import Visitor, give_totp, totp_now, with_password
from tests.unit.assay.test_portal_pages import inline_in
from tests.unit.audit_support import bodies, recorded

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]
LISA: dict[str, Any] = {
    "name": "Lisa  Liu",
    "email": "Lisa@example.org",
    "email_verified": True,
    "groups": ["ml-leads", "staff"],
}


class Provider:
    """The identity provider, and a person at its page."""

    def __init__(self, address: str) -> None:
        self.address = address

    def knows(self, sub: str, **claims: Any) -> None:
        answer = httpx.put(f"{self.address}/users/{sub}", json=claims)
        assert answer.status_code == 204, answer.text

    def consents(self, address: str, sub: str, **form: str) -> str:
        """Return the address to which the provider sends the browser afterward."""
        answer = httpx.post(address, data=form or {"sub": sub})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]


def use(settings: Any, issuer: str) -> None:
    settings.OIDC_ISSUER, settings.OIDC_NAME = issuer, "Example ID"
    app = {
        "provider_id": settings.OIDC_PROVIDER,
        "name": "Example ID",
        "client_id": "assay",
        "secret": "not so secret",
        "settings": {"server_url": issuer, "scope": ["openid", "profile", "email"]},
    }
    settings.SOCIALACCOUNT_PROVIDERS = {
        "openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [app]}
    }


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    with run_server_in_thread() as started:
        yield started
    del os.environ["AUTHLIB_INSECURE_TRANSPORT"]


@pytest.fixture
def provider(server: Any, settings: Any) -> Provider:
    made = Provider(f"http://localhost:{server.server_port}")
    use(settings, made.address)
    made.knows("lisa-1", **LISA)
    return made


@pytest.fixture
def admin(person: Callable[..., Person]) -> Person:
    return with_password(person("Ada", "admin"))


def go(visitor: Visitor, provider: Provider, sub: str = "lisa-1", **query: Any) -> Any:
    """The whole way: to the provider, through its page, and back."""
    away = visitor.get("/sign-in/sso", **query)
    assert away.status_code == 302, away.content[:2000]
    return back(visitor, provider.consents(away["Location"], sub))


def back(visitor: Visitor, address: str) -> Any:
    parts = urlsplit(address)
    assert parts.path == "/sign-in/sso/callback"
    return visitor.get(parts.path, **{k: v[0] for k, v in parse_qs(parts.query).items()})


def roles(person: Person) -> list[tuple[str, str | None, str]]:
    held = person.role_assignments.order_by("role")
    return list(held.values_list("role", "department__slug", "source"))


def refusals() -> list[str]:
    rows = AuditEvent.objects.filter(action="person:sign_in", outcome="denied").order_by("id")
    return [row.reason for row in rows]


def test_somebody_new_gets_an_account_with_the_roles_of_their_groups(
    provider: Provider, admin: Person, department: Callable[[str], Department]
) -> None:
    group_mapping_create(
        actor=proven(admin),
        group="ml-leads",
        role="lead",
        department=department("clinical"),
    )
    visitor = Visitor()
    assert "Sign in with Example ID" in visitor.get("/sign-in").content.decode()

    answer = go(visitor, provider, next="/jobs")

    assert (answer.status_code, answer["Location"]) == (302, "/jobs")
    assert visitor.is_in()
    lisa = Person.objects.get(email="lisa@example.org")
    assert (lisa.name, lisa.has_usable_password()) == ("Lisa Liu", False)
    assert roles(lisa) == [("lead", "clinical", "sso")]
    account = SocialAccount.objects.get()
    assert (account.uid, account.extra_data) == ("lisa-1", {})
    assert not SocialToken.objects.exists()
    made = AuditEvent.objects.exclude(actor_kind="service", actor_id="bootstrap")
    by_provider = made.filter(actor_kind="service", actor_id="sso").order_by("id")
    actions = [event.action for event in by_provider]
    assert actions == ["person:create", "person:link", "role:grant"]
    (body,) = bodies(action="person:sign_in", outcome="allowed")
    assert body["data"]["methods"] == ["sso"]


def test_leaving_a_group_takes_its_role_at_the_next_sign_in_and_no_other(
    provider: Provider,
    admin: Person,
    person: Callable[..., Person],
    department: Callable[[str], Department],
) -> None:
    actor = proven(admin)
    clinical = department("clinical")
    group_mapping_create(actor=actor, group="ml-leads", role="lead", department=clinical)
    lisa = person("Lisa", "viewer@finance")
    go(Visitor(), provider)
    assert roles(lisa) == [("lead", "clinical", "sso"), ("viewer", "finance", "manual")]

    provider.knows("lisa-1", **{**LISA, "groups": ["staff"]})
    go(Visitor(), provider)
    assert roles(lisa) == [("viewer", "finance", "manual")]

    provider.knows("lisa-1", **LISA)
    go(Visitor(), provider)
    provider.knows("lisa-1", **{key: LISA[key] for key in LISA if key != "groups"})
    go(Visitor(), provider)
    assert roles(lisa) == [("viewer", "finance", "manual")]


def test_the_providers_name_for_a_person_outlives_their_address(provider: Provider) -> None:
    go(Visitor(), provider)
    provider.knows("lisa-1", **{**LISA, "email": "lisa.married@example.org"})

    assert go(Visitor(), provider).status_code == 302

    assert Person.objects.count() == 1


def test_an_address_that_was_given_to_somebody_else_opens_nobodys_account(
    provider: Provider, admin: Person
) -> None:
    """Lisa has another address by now; her old one is another Lisa's, verified."""
    go(Visitor(), provider)
    provider.knows("lisa-1", **{**LISA, "email": "lisa.married@example.org"})
    provider.knows("lisa-2", **LISA)
    visitor = Visitor()

    answer = go(visitor, provider, "lisa-2")

    assert answer.status_code == 401
    assert "belongs to another person" in answer.content.decode()
    assert not visitor.is_in()
    assert SocialAccount.objects.get().uid == "lisa-1"


def test_an_administrator_ends_a_link_and_the_next_of_that_address_is_taken_for_them(
    provider: Provider, admin: Person
) -> None:
    """The provider was set up anew, and knows everybody by another name."""
    old = Visitor()
    go(old, provider)
    provider.knows("lisa-again", **LISA)
    lisa = Person.objects.get(email="lisa@example.org")
    ada = Visitor().proven(admin)
    page = ada.get(f"/people/{lisa.pk}/sign-in").content.decode()
    assert "End the link" in page
    assert inline_in(page) == []

    assert ada.post(f"/people/{lisa.pk}/sign-in", reason="").status_code == 400
    ended = verified(admin, f"/people/{lisa.pk}/sign-in", {"reason": "“A new” & other tenant."})
    assert ended.status_code == 302

    assert not old.is_in()
    assert "End the link" not in ada.get(f"/people/{lisa.pk}/sign-in").content.decode()
    assert ada.post(f"/people/{lisa.pk}/sign-in", reason="again").status_code == 409
    event = recorded(action="person:unlink", outcome="allowed")
    assert (event.actor_name, event.reason) == ("Ada", "“A new” & other tenant.")
    assert go(Visitor(), provider, "lisa-again").status_code == 302
    assert SocialAccount.objects.get().user == lisa


def test_nobody_else_ends_a_link(
    provider: Provider, admin: Person, person: Callable[..., Person]
) -> None:
    go(Visitor(), provider)
    lisa = Person.objects.get(email="lisa@example.org")
    for roles_held, status in ((("auditor",), 403), (("lead@finance",), 404)):
        visitor = Visitor().sign_in(with_password(person(f"P {status}", *roles_held)))
        answer = visitor.post(f"/people/{lisa.pk}/sign-in", reason="x")
        assert answer.status_code == status
    assert SocialAccount.objects.exists()


def test_an_address_that_only_looks_like_somebodys_opens_nobodys_account(
    provider: Provider, person: Callable[..., Person]
) -> None:
    """In small letters a Kelvin sign is a k."""
    person("Kim", "admin")
    provider.knows("mallory", **{**LISA, "email": "\N{KELVIN SIGN}im@example.org"})
    visitor = Visitor()

    assert go(visitor, provider, "mallory").status_code == 401
    assert not visitor.is_in()


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_unverified_address_opens_nobodys_account(
    provider: Provider, person: Callable[..., Person], verified: Any
) -> None:
    person("Lisa", "admin")
    provider.knows("mallory", **{**LISA, "email_verified": verified})
    visitor = Visitor()

    answer = go(visitor, provider, "mallory")

    assert answer.status_code == 401
    assert "verified" in answer.content.decode()
    assert not visitor.is_in()
    assert not SocialAccount.objects.exists()
    assert len(refusals()) == 1


def test_an_unverified_address_is_believed_in_a_domain_that_was_named(
    provider: Provider, settings: Any
) -> None:
    settings.OIDC_EMAIL_DOMAINS = ["example.org"]
    provider.knows("entra", **{k: v for k, v in LISA.items() if k != "email_verified"})
    provider.knows("evil", email="lisa@example.org.evil", name="E")

    assert go(Visitor(), provider, "entra").status_code == 302
    assert go(Visitor(), provider, "evil").status_code == 401


def test_nobody_is_made_where_accounts_are_made_by_hand(provider: Provider, settings: Any) -> None:
    settings.OIDC_CREATE_PEOPLE = False

    answer = go(Visitor(), provider)

    assert answer.status_code == 401
    assert "no account for your address" in answer.content.decode()
    assert not Person.objects.exists()


def test_an_inactive_account_stays_closed(provider: Provider, admin: Person) -> None:
    go(Visitor(), provider)
    lisa = Person.objects.get(email="lisa@example.org")
    visitor = Visitor()
    assert go(visitor, provider).status_code == 302
    person_deactivate(actor=proven(admin), person_id=lisa.pk, reason="left")

    assert not visitor.is_in()
    answer = go(visitor, provider)

    assert answer.status_code == 401
    assert "inactive" in answer.content.decode()
    assert not visitor.is_in()


def test_a_second_factor_that_was_set_up_here_is_asked_for(provider: Provider) -> None:
    go(Visitor(), provider)
    lisa = Person.objects.get(email="lisa@example.org")
    give_totp(lisa)
    visitor = Visitor()

    with_password(lisa)

    assert go(visitor, provider)["Location"] == "/sign-in/second-factor"
    assert not visitor.is_in()
    waiting = json.dumps(dict(visitor.client.session))
    assert "access_token" not in waiting
    assert lisa.password not in waiting
    assert '"token"' not in waiting
    assert visitor.post("/sign-in/second-factor", code=totp_now(lisa)).status_code == 302
    assert visitor.is_in()


def test_the_request_carries_state_nonce_and_pkce_and_nothing_of_the_visitors(
    provider: Provider,
) -> None:
    away = Visitor().get(
        "/sign-in/sso", scope="admin", auth_params="prompt=none", process="connect", again="1"
    )["Location"]
    asked = {name: value[0] for name, value in parse_qs(urlsplit(away).query).items()}

    assert away.startswith(provider.address)
    assert set(asked["scope"].split()) == {"openid", "profile", "email"}
    assert asked["redirect_uri"] == "https://testserver/sign-in/sso/callback"
    assert asked["code_challenge_method"] == "S256"
    assert asked["prompt"] == "login"
    assert len(asked["nonce"]) >= 32
    assert len(asked["state"]) >= 16


def test_an_answer_for_another_browser_signs_nobody_in(provider: Provider) -> None:
    mallory, victim = Visitor(), Visitor()
    address = provider.consents(mallory.get("/sign-in/sso")["Location"], "lisa-1")
    victim.get("/sign-in/sso")

    answer = back(victim, address)

    assert answer.status_code == 401
    assert not victim.is_in()


def test_an_answer_with_another_nonce_signs_nobody_in(provider: Provider) -> None:
    visitor = Visitor()
    parts = urlsplit(visitor.get("/sign-in/sso")["Location"])
    asked = {name: value[0] for name, value in parse_qs(parts.query).items()}
    forged = parts._replace(query=urlencode({**asked, "nonce": "x" * 32})).geturl()

    answer = back(visitor, provider.consents(forged, "lisa-1"))

    assert answer.status_code == 401
    assert "not for this sign-in" in answer.content.decode()
    assert not Person.objects.exists()


def test_an_answer_holds_once(provider: Provider) -> None:
    visitor = Visitor()
    address = provider.consents(visitor.get("/sign-in/sso")["Location"], "lisa-1")
    assert back(visitor, address).status_code == 302
    visitor.post("/sign-out")

    assert back(visitor, address).status_code == 401
    assert not visitor.is_in()


def test_canceling_at_the_provider_is_said(provider: Provider) -> None:
    visitor = Visitor()
    away = visitor.get("/sign-in/sso")["Location"]
    state = parse_qs(urlsplit(away).query)["state"][0]

    # This provider forgets the state in an error, which the standard asks for.
    answer = back(visitor, f"{provider.consents(away, '', action='deny')}&state={state}")

    assert answer.status_code == 401
    assert "was canceled" in answer.content.decode()


@pytest.mark.parametrize(
    "query", [{}, {"code": "x"}, {"state": "x", "code": "y"}, {"error": "server_error"}]
)
def test_a_made_up_answer_is_refused_and_audited(provider: Provider, query: dict[str, str]) -> None:
    answer = Visitor().get("/sign-in/sso/callback", **query)

    assert answer.status_code == 401
    assert len(refusals()) == 1


def test_too_many_groups_for_a_token_are_not_taken_for_none(
    provider: Provider, admin: Person, department: Callable[[str], Department]
) -> None:
    group_mapping_create(
        actor=proven(admin),
        group="ml-leads",
        role="lead",
        department=department("clinical"),
    )
    go(Visitor(), provider)
    lisa = Person.objects.get(email="lisa@example.org")
    claims = {key: value for key, value in LISA.items() if key != "groups"}
    provider.knows("lisa-1", **claims, _claim_names={"groups": "src1"})

    assert go(Visitor(), provider).status_code == 401
    assert roles(lisa) == [("lead", "clinical", "sso")]


@pytest.mark.parametrize("groups", [{"a": 1}, [1, 2], 7])
def test_groups_that_are_no_names_are_refused(provider: Provider, groups: Any) -> None:
    provider.knows("lisa-1", **{**LISA, "groups": groups})

    assert go(Visitor(), provider).status_code == 401


def test_another_provider_is_another_name_space(provider: Provider, settings: Any) -> None:
    go(Visitor(), provider)
    settings.OIDC_PROVIDER = "oidc-another"
    use(settings, provider.address)
    provider.knows("lisa-1", **{**LISA, "email": "somebody.else@example.org"})

    go(Visitor(), provider)

    assert Person.objects.count() == 2


def test_a_provider_that_is_away_is_said_to_be_away(settings: Any, policy: Any) -> None:
    use(settings, "http://localhost:1")

    answer = Visitor().get("/sign-in/sso")

    assert answer.status_code == 503
    assert "ASSAY_OIDC_ISSUER" in answer.content.decode()


def test_without_a_provider_there_is_no_such_page(policy: Any) -> None:
    for path in ("/sign-in/sso", "/sign-in/sso/callback"):
        assert Visitor().get(path).status_code == 404
    assert "sign-in/sso" not in Visitor().get("/sign-in").content.decode()


def test_whoever_came_by_single_sign_on_confirms_there_that_it_is_them(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay.accounts import freshness

    visitor = Visitor()
    go(visitor, provider)
    page = visitor.get("/account/confirm", next="/account/authenticator").content.decode()

    assert "/sign-in/sso?again=1&amp;next=%2Faccount%2Fauthenticator" in page
    monkeypatch.setattr(freshness, "FRESH_S", 10)
    answer = go(visitor, provider, again="1", next="/account/authenticator")
    assert answer["Location"] == "/account/authenticator"
    assert visitor.get("/account/authenticator").status_code == 200


@pytest.mark.parametrize(
    ("sub", "claims", "status"),
    [
        ("s" * 255, {}, 401),
        ("lisa-1", {"name": "a\x00b"}, 401),
        ("lisa-1", {"_claim_names": 7}, 302),
    ],
)
def test_odd_claims_are_no_fault(
    provider: Provider, sub: str, claims: dict[str, Any], status: int
) -> None:
    provider.knows(sub, **{**LISA, **claims})

    assert go(Visitor(), provider, sub).status_code == status
