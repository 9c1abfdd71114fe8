"""The portal's pages of keys: what they show to whom, and what their buttons do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.keys.selectors import principal_for_token
from governance.quotas.models import QuotaLimit
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import inline_in, signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


@pytest.fixture
def company(company: Company, redis: object) -> Company:
    return company


def make(client: Client, company: Company, **given: Any) -> tuple[ApiKey, str]:
    """A key of engineering through the form, and its token as the page shows it."""
    department = company.departments["engineering"].pk
    body = {"name": "build bot", "department": department, "scopes": ["deployment:invoke"]}
    response = client.post("/keys", {**body, "days": "30", **given})
    assert response.status_code == 201, response.content
    return ApiKey.objects.get(name="build bot"), shown(response)


def shown(response: Any) -> str:
    html: str = response.content.decode()
    assert inline_in(html) == []
    assert response.headers["Cache-Control"] == "no-store"
    return html.split('id="token"')[1].split(">")[1].split("<")[0]


def test_the_form_narrows_a_key(company: Company) -> None:
    client = signed_in(company.enzo)
    name = company.deployment.name
    key, _ = make(
        client,
        company,
        purpose="Building.",
        networks="10.0.0.0/8\n 192.0.2.0/24\n\n",
        allowed_deployments=[name],
    )
    assert (key.purpose, key.allowed_deployments) == ("Building.", [name])
    assert key.networks == ["10.0.0.0/8", "192.0.2.0/24"]
    assert key.owner == company.enzo
    html = client.get(f"/keys/{key.pk}").content.decode()
    for words in ("Building.", "192.0.2.0/24", name, "Enzo Engineering"):
        assert words in html, words


def test_a_wrong_network_is_said_and_nothing_is_made(company: Company) -> None:
    client = signed_in(company.enzo)
    department = company.departments["engineering"].pk
    response = client.post(
        "/keys",
        {
            "name": "bad",
            "department": department,
            "scopes": ["deployment:invoke"],
            "days": "30",
            "networks": "10.0.0.1/8",
        },
    )
    assert response.status_code == 400
    html = response.content.decode()
    assert "write 10.0.0.0/8" in html
    assert "10.0.0.1/8" in html
    assert not ApiKey.objects.filter(name="bad").exists()


def test_a_rotation_shows_the_new_secret_once_and_the_pair_as_a_pair(company: Company) -> None:
    client = signed_in(company.enzo)
    old, old_token = make(client, company)
    token = shown(client.post(f"/keys/{old.pk}/rotate", {"overlap": "24"}))
    new = ApiKey.objects.get(rotated_from=old)
    for each in (old_token, token):
        principal_for_token(each)
    html = client.get("/keys").content.decode()
    assert inline_in(html) == []
    assert html.count(new.public_id) >= 2
    assert "Retiring" in html
    page = client.get(f"/keys/{old.pk}").content.decode()
    assert "Its successor is" in page
    assert f"/keys/{new.pk}" in page
    assert "/rotate" not in page
    assert f"/keys/{old.pk}" in client.get(f"/keys/{new.pk}").content.decode()
    again = client.post(f"/keys/{old.pk}/rotate", {"overlap": "24"})
    assert again.status_code == 409
    assert "has been rotated already" in again.content.decode()
    assert client.post(f"/keys/{new.pk}/rotate", {"overlap": "9"}).status_code == 400


def test_details_change_on_the_page(company: Company) -> None:
    client = signed_in(company.enzo)
    key, _ = make(client, company, networks="10.0.0.0/8")
    body = {"name": "nightly bot", "purpose": "x", "owner": company.devi.pk, "networks": ""}
    response = client.post(f"/keys/{key.pk}/change", body)
    assert (response.status_code, response.headers["Location"]) == (302, f"/keys/{key.pk}")
    key.refresh_from_db()
    assert (key.name, key.owner, key.networks) == ("nightly bot", company.devi, [])
    stranger = client.post(
        f"/keys/{key.pk}/change", {**body, "owner": company.fay.pk, "purpose": "As typed."}
    )
    assert stranger.status_code == 400
    assert "As typed." in stranger.content.decode()
    assert client.get(f"/keys/{key.pk}/change").status_code == 200


def test_a_reason_for_revoking_is_kept(company: Company) -> None:
    client = signed_in(company.enzo)
    key, _ = make(client, company)
    response = client.post(f"/keys/{key.pk}/revoke", {"reason": "The laptop is gone"})
    assert response.status_code == 302
    html = client.get(f"/keys/{key.pk}").content.decode()
    assert "The laptop is gone." in html
    assert "/revoke" not in html
    event = AuditEvent.objects.get(action="key:revoke")
    assert (event.reason, event.subject_id) == ("The laptop is gone", key.public_id)


def test_the_page_shows_every_limit_that_binds(company: Company) -> None:
    client = signed_in(company.enzo)
    key, _ = make(client, company)
    QuotaLimit.objects.create(api_key=key, kind="requests_per_minute", limit=7)
    QuotaLimit.objects.create(department=key.department, kind="tokens_per_day", limit=0)
    html = client.get(f"/keys/{key.pk}").content.decode()
    assert "7 requests per minute" in html
    assert "Used up" in html
    assert inline_in(html) == []


def test_an_owner_who_left_is_pointed_out(company: Company) -> None:
    client = signed_in(company.enzo)
    key, _ = make(client, company)
    ApiKey.objects.filter(pk=key.pk).update(owner=company.devi)
    company.devi.is_active = False
    company.devi.save()
    assert "has left" in client.get(f"/keys/{key.pk}").content.decode()
    assert "(left)" in client.get("/keys").content.decode()


def test_who_answers_for_a_key_gets_its_buttons_and_others_do_not(company: Company) -> None:
    key, _ = make(signed_in(company.enzo), company)
    vera = signed_in(company.vera)
    assert vera.get(f"/keys/{key.pk}").status_code == 404
    ApiKey.objects.filter(pk=key.pk).update(owner=company.vera)
    html = vera.get(f"/keys/{key.pk}").content.decode()
    assert f"/keys/{key.pk}/rotate" in html
    assert f"/keys/{key.pk}/change" not in html
    audited = signed_in(company.asha).get(f"/keys/{key.pk}").content.decode()
    for address in ("rotate", "change", "revoke"):
        assert f"/keys/{key.pk}/{address}" not in audited


@pytest.mark.parametrize("address", ["", "/change", "/rotate", "/revoke"])
def test_another_departments_key_is_not_there(company: Company, address: str) -> None:
    key, _ = make(signed_in(company.enzo), company)
    client = signed_in(company.fay)
    path = f"/keys/{key.pk}{address}"
    answer = client.post(path, {"overlap": "1"}) if address else client.get(path)
    assert answer.status_code == 404
    assert not ApiKey.objects.filter(rotated_from=key).exists()


def test_the_pages_take_a_fixed_number_of_queries(company: Company) -> None:
    client = signed_in(company.enzo)
    key, _ = make(client, company)
    counts = []
    for number in range(2):
        if number:
            for _ in range(10):
                ApiKey.objects.create(
                    public_id=f"more{ApiKey.objects.count()}",
                    secret_hmac=b"",
                    pepper_version=1,
                    name="more",
                    department=key.department,
                    owner=company.devi,
                    expires_at=timezone.now() + timedelta(days=1),
                )
        with CaptureQueriesContext(
            connection,
        ) as listed:
            client.get("/keys")
        with CaptureQueriesContext(connection) as page:
            client.get(f"/keys/{key.pk}")
        counts.append((len(listed), len(page)))
    assert counts[0] == counts[1]
    # The frame around every page has its own pin, in `test_portal_pages`.
    assert max(counts[0]) <= 27
