"""Another site in the same browser: it can send forms and show frames, and gets nothing done."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.reviews.models import Decision
from tests.abuse.company import address_book, browser, caller
from tests.abuse.database import digests
from tests.abuse.surface import JSON, addresses, operations
from tests.unit.assay.portal_data import PASSWORD, Company

EVIL = "https://evil.example"


def victim(company: Company, **more: Any) -> Client:
    """A reviewer's browser that checks as a real one makes us check."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=False, **more)
    client.force_login(company.carla)
    return client


def token_in(client: Client, page: str) -> str:
    found = re.search(
        r'name="csrfmiddlewaretoken" value="(\w+)"', client.get(page).content.decode()
    )
    assert found is not None
    return found[1]


def decide(client: Client, company: Company, **more: Any) -> int:
    review = company.review_open
    form = {"verdict": "comment", "reason": "Forged.", "digest": review.digest, **more}
    headers = form.pop("headers", {})
    secure = bool(form.pop("secure", False))
    return int(
        client.post(
            f"/reviews/{review.pk}/decide", form, headers=headers, secure=secure
        ).status_code
    )


def forged(company: Company) -> bool:
    return Decision.objects.filter(reason="Forged.").exists()


def test_a_form_of_another_site_decides_nothing(company: Company) -> None:
    client = victim(company)
    for more in (
        {},
        {"csrfmiddlewaretoken": "x" * 64},
        {"csrfmiddlewaretoken": ""},
        {"headers": {"origin": EVIL}},
        {"headers": {"origin": "null"}},
        {"headers": {"referer": f"{EVIL}/reviews/1"}, "secure": True},
    ):
        assert decide(client, company, **more) == 403, more
    assert not forged(company)


def test_a_token_of_another_session_is_none(company: Company) -> None:
    """The attacker has an account too, and a token from their own page."""
    attacker = browser(company, "a viewer of engineering", enforce_csrf_checks=True)
    stolen = token_in(attacker, f"/reviews/{company.review_open.pk}")
    assert decide(victim(company), company, csrfmiddlewaretoken=stolen) == 403
    assert not forged(company)


def test_a_good_token_from_another_origin_is_refused(company: Company) -> None:
    client = victim(company)
    token = token_in(client, f"/reviews/{company.review_open.pk}")
    more = {"csrfmiddlewaretoken": token}
    for origin in (EVIL, "null", "http://testserver.evil.example", "https://testserver"):
        assert decide(client, company, **more, headers={"origin": origin}) == 403, origin
    assert not forged(company)
    assert decide(client, company, **more, headers={"origin": "http://testserver"}) == 302
    assert forged(company)


@pytest.mark.sweep
def test_no_form_of_the_portal_goes_without_its_token(company: Company) -> None:
    """Every address, as the admin who may do everything."""
    client = browser(company, "an admin", enforce_csrf_checks=True)
    book, before = address_book(company), digests()
    faults = []
    for address in addresses():
        if address.pattern.startswith(("/api", "/node/", "/scim/")):
            continue
        response = client.post(address.filled(book), {"reason": "Forged.", "name": "forged"})
        if response.status_code not in {403, 404, 405}:
            faults.append((address.pattern, response.status_code))
    assert faults == []
    assert digests() == before


@pytest.mark.sweep
def test_no_page_changes_anything_when_it_is_only_looked_at_nor_opens_in_a_frame(
    company: Company,
) -> None:
    """An image, a link or a prefetch of another site is a GET with the victim's cookie. Without
    frames, a person cannot be led to press Approve under something else.
    """
    client = browser(company, "an admin")
    api = caller(company, "an admin")
    book = address_book(company)
    client.get("/")
    before, events = digests(), AuditEvent.objects.filter(outcome="allowed").count()
    faults = []
    for address in addresses():
        query = {"verdict": "approve", "reason": "Forged.", "name": "forged", "_method": "POST"}
        response = client.get(address.filled(book), query)
        faults += [(address.pattern, each) for each in missing_headers(response)]
        if digests() != before:
            faults.append((address.pattern, "changed something"))
            before = digests()
    for operation in operations():
        if operation.reads and not operation.places:
            api.get(operation.path)
    assert faults == []
    assert digests() == before
    assert AuditEvent.objects.filter(outcome="allowed").count() - events <= 2  # exports


def missing_headers(response: Any) -> list[str]:
    """Return the headers of protection that the answer lacks or weakens."""
    policy = response.headers.get("Content-Security-Policy", "")
    expected = {
        f"Content-Security-Policy: {policy}": "frame-ancestors 'none'" in policy
        and "unsafe" not in policy,
        "X-Frame-Options": response.headers.get("X-Frame-Options") == "DENY",
        "X-Content-Type-Options": response.headers.get("X-Content-Type-Options") == "nosniff",
    }
    return [name for name, present in expected.items() if not present]


def test_the_api_takes_a_session_only_with_its_token(company: Company) -> None:
    client = victim(company)
    path = f"/api/v1/releases/{company.waiting.pk}/decisions"
    body = {"verdict": "comment", "reason": "Forged.", "digest": company.waiting.dossier_digest}
    assert client.get("/api/v1/me").status_code == 200
    for headers in ({}, {"x-csrftoken": "x" * 64}, {"x-requested-with": "XMLHttpRequest"}):
        answer = client.post(path, body, content_type=JSON, headers=headers)
        assert answer.status_code == 403, headers
    assert not forged(company)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_json_that_a_form_could_send_is_not_read(company: Company, kind: str) -> None:
    """A form needs no consent of ours for these types; JSON it cannot send."""
    client = caller(company, "an admin")
    before = ApiKey.objects.count()
    raw = '{"department": "engineering", "name": "forged", "x": "='
    answer = client.generic("POST", "/api/v1/keys", raw + '"}', content_type=kind)
    assert answer.status_code in {400, 415}
    assert ApiKey.objects.count() == before


def test_another_site_may_not_read_our_answers(company: Company) -> None:
    for client in (caller(company, "an admin"), victim(company)):
        for path in ("/api/v1/me", "/api/schema/", "/"):
            answer = client.get(path, headers={"origin": EVIL})
            assert "Access-Control-Allow-Origin" not in answer.headers
            preflight = client.options(
                path, headers={"origin": EVIL, "access-control-request-method": "POST"}
            )
            assert "Access-Control-Allow-Origin" not in preflight.headers


def test_cookies_are_kept_from_scripts_and_other_sites(company: Company) -> None:
    company.carla.set_password(PASSWORD)
    company.carla.save()
    client = Client()
    client.get("/sign-in")
    client.post("/sign-in", {"email": company.carla.email, "password": PASSWORD})
    assert client.get("/reviews").status_code == 200
    for name in ("sessionid", "csrftoken"):
        assert client.cookies[name]["samesite"] in {"Lax", "Strict"}, name
        assert client.cookies[name]["httponly"], name


def test_signing_out_and_in_are_no_links(company: Company) -> None:
    client = victim(company)
    assert client.get("/sign-out").status_code == 405
    assert client.post("/sign-out").status_code == 403
    assert client.get("/api/v1/me").status_code == 200
    login = Client(enforce_csrf_checks=True)
    form = {"email": "mallory@assay.example", "password": "x"}
    assert login.post("/sign-in", form).status_code == 403


@pytest.mark.parametrize("target", [
    "//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)",
    "https:evil.example", "\thttps://evil.example", "//evil.example/%2f..",
])  # fmt: skip
def test_signing_in_leads_nowhere_else(company: Company, target: str) -> None:
    company.carla.set_password(PASSWORD)
    company.carla.save()
    form = {"email": company.carla.email, "password": PASSWORD}
    answer = Client().post("/sign-in", {**form, "next": target})
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/")
    assert not answer.headers["Location"].startswith(("//", "/\\"))
