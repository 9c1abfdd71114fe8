"""Every page, for every role: its status, nothing inline, a fixed number of queries."""

from __future__ import annotations

import uuid
from html.parser import HTMLParser
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.signing import audit_signer
from governance.audit.tree.proof_files import check_proof
from tests import proofs
from tests.unit.assay.api_support import Api
from tests.unit.assay.portal_data import Company, found_company
from workers.jobs.models import Job

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
LISTS = (
    "/", "/models", "/catalog", "/catalog/text-generation", "/intakes", "/datasets", "/jobs",
    "/reviews", "/deployments", "/batches", "/playground", "/keys", "/credentials",
    "/usage",
)  # fmt: skip
# Pinned: a rise is a decision, not an accident. Each asks for emergency accesses in force. The
# first page asks seven contexts, and for alarms and incidents.
QUERIES = {
    "/": 34,
    "/models": 10,
    "/catalog": 7,
    "/catalog/text-generation": 9,
    "/intakes": 8,
    "/datasets": 8,
    "/jobs": 8,
    "/reviews": 13,
    "/deployments": 10,
    "/batches": 8,
    "/playground": 11,
    "/keys": 12,
    "/credentials": 8,
    "/usage": 9,
}
# Around each page: the scope of row security, as in `test_api_lists`, and announced recoveries.
SCOPE = 5
EVERYONE = ("ada", "omar", "asha", "carla", "milo", "clara", "enzo", "devi", "vera", "fay")


def signed_in(person: Any) -> Client:
    """Somebody who has just proved who they are."""
    return proofs.signed_in(Client(), person)


def pages_of(company: Company) -> list[str]:
    """The pages of single things, all of the engineering department."""
    second, review = company.second.pk, company.review_open.pk
    return [
        "/models/docstring-writer",
        f"/versions/{second}",
        f"/releases/{company.waiting.pk}",
        f"/intakes/{company.pickle.pk}",
        f"/intakes/{company.signable.pk}",
        "/datasets/docstrings-train",
        f"/jobs/{company.running.pk}",
        f"/jobs/{company.failed.pk}",
        f"/jobs/{company.running.pk}/progress",
        f"/jobs/{company.running.pk}/events.json",
        *(
            f"/reviews/{review}?tab={tab}"
            for tab in ("changed", "evidence", "card", "dossier", "audit")
        ),
        f"/reviews/{company.review_approved.pk}",
        f"/deployments/{company.deployment.pk}",
    ]


class Inline(HTMLParser):
    """Collects what a strict content security policy would block."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or "style" in given:
            self.found.append(f"style on {tag}")
        if tag == "script" and "src" not in given and given.get("type") != "application/json":
            self.found.append("inline script")
        self.found += [f"{name} on {tag}" for name in given if name.startswith(("on", "hx-on"))]


def inline_in(html: str) -> list[str]:
    parser = Inline()
    parser.feed(html)
    return parser.found


@pytest.mark.parametrize("who", EVERYONE)
def test_every_list_renders_for_every_role(company: Company, who: str) -> None:
    client = signed_in(company.people[who])
    for address in LISTS:
        response = client.get(address)
        assert response.status_code == 200, address
        assert inline_in(response.content.decode()) == [], address


@pytest.mark.parametrize("who", ["ada", "carla", "asha", "enzo", "devi", "vera"])
def test_every_page_renders_for_those_who_may_see_it(company: Company, who: str) -> None:
    client = signed_in(company.people[who])
    for address in pages_of(company):
        response = client.get(address)
        assert response.status_code == 200, address
        assert inline_in(response.content.decode()) == [], address


def test_what_another_department_owns_is_not_found(company: Company) -> None:
    client = signed_in(company.fay)
    for address in pages_of(company):
        response = client.get(address)
        assert response.status_code == 404, address
        assert inline_in(response.content.decode()) == [], address


@pytest.mark.parametrize("address", ["/models/new", "/datasets/new", "/intakes/new"])
def test_forms_render_for_a_lead(company: Company, address: str) -> None:
    assert signed_in(company.enzo).get(address).status_code == 200


def test_forms_about_a_model_and_a_version_render(company: Company) -> None:
    client = signed_in(company.enzo)
    for address in (
        "/models/docstring-writer/gates",
        "/models/docstring-writer/fine-tune",
        "/models/review-sentiment/fine-tune",
        f"/versions/{company.second.pk}/evaluate",
        f"/versions/{company.second.pk}/release",
    ):
        response = client.get(address)
        expected = 404 if "sentiment" in address else 200
        assert response.status_code == expected, address
        assert inline_in(response.content.decode()) == [], address


def test_the_audit_log_is_open_to_those_who_may_read_it(company: Company) -> None:
    for who, expected in (
        ("asha", 200),
        ("ada", 200),
        ("enzo", 200),
        ("devi", 404),
        ("carla", 404),
    ):
        response = signed_in(company.people[who]).get("/audit")
        assert response.status_code in {expected, 403 if expected == 404 else expected}, who
    response = signed_in(company.asha).get(f"/audit/{company.event.pk}")
    assert response.status_code == 200
    assert inline_in(response.content.decode()) == []


def test_the_heads_of_the_log_and_proofs_are_for_those_who_see_all_of_it(company: Company) -> None:
    seal_once()
    size = AuditCheckpoint.objects.latest("id").tree_size
    auditor = signed_in(company.asha)
    page = auditor.get("/audit/checkpoints")
    assert page.status_code == 200
    assert inline_in(page.content.decode()) == []
    assert f"/audit/checkpoints/{size}/consistency" in page.content.decode()
    for address in (f"/audit/{company.event.pk}/proof", f"/audit/checkpoints/{size}/consistency"):
        proof = auditor.get(address).json()
        assert check_proof(proof, public_keys=audit_signer().public_key), address
    assert auditor.get(f"/audit/checkpoints/{size + 1}/consistency").status_code == 400
    for who in ("enzo", "devi", "carla"):
        for address in ("/audit/checkpoints", f"/audit/checkpoints/{size}/consistency"):
            answer = signed_in(company.people[who]).get(address)
            assert answer.status_code in {403, 404}, (who, address)
    few = queries(auditor, "/audit/checkpoints")
    for more in range(30):
        AuditCheckpoint.objects.create(
            tree_size=size + 1 + more, root_hash=bytes(32), frontier=b"", note="n"
        )
    assert queries(auditor, "/audit/checkpoints") == few


def test_the_page_of_an_event_that_was_changed_says_so(company: Company) -> None:
    seal_once()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE governance_auditevent DISABLE TRIGGER USER")
    AuditEvent.objects.filter(pk=company.event.pk).update(canonical=b"\xff\x00")
    page = signed_in(company.asha).get(f"/audit/{company.event.pk}")
    assert page.status_code == 200
    assert "contradicts the signed checkpoint" in page.content.decode()


def test_people_are_for_admins(company: Company) -> None:
    admin = signed_in(company.ada)
    assert admin.get("/people").status_code == 200
    assert admin.get(f"/people/{company.devi.pk}").status_code == 200
    assert signed_in(company.enzo).get("/people").status_code == 403


@pytest.mark.django_db(transaction=True)
def test_pages_look_after_a_company_with_no_story() -> None:
    with transaction.atomic():
        company = found_company()
    for who in ("ada", "enzo", "carla"):
        client = signed_in(company.people[who])
        for address in LISTS:
            assert client.get(address).status_code == 200, address


def test_anonymous_visitors_are_sent_to_sign_in(company: Company) -> None:
    for address in (*LISTS, *pages_of(company), "/audit", "/people"):
        response = Client().get(address)
        assert response.status_code == 302, address
        assert response.headers["Location"].startswith("/sign-in?next="), address


def test_an_unknown_address_is_a_friendly_404(company: Company) -> None:
    response = signed_in(company.enzo).get("/no/such/page", headers={"Accept": "text/html"})
    assert response.status_code == 404
    assert inline_in(response.content.decode()) == []


def queries(client: Client | Api, address: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


def test_lists_cost_the_same_number_of_queries_for_one_row_and_for_many(company: Company) -> None:
    client = signed_in(company.ada)
    for address in (*LISTS, "/audit", "/people"):
        client.get(address)
    # On a slow machine an alarm would ask who holds up the sealer.
    seal_once()
    few = {address: queries(client, address) for address in LISTS}
    multiply(company)
    many = {address: queries(client, address) for address in LISTS}
    assert many == few
    assert {address: count - SCOPE for address, count in few.items()} == QUERIES


def multiply(company: Company) -> None:
    """25 more rows of what the lists show."""
    for model, fields in rows_to_copy(company):
        for number in range(25):
            copied = model.__class__.objects.get(pk=model.pk)
            copied.pk = None
            copied._state.adding = True
            for name, value in fields.items():
                setattr(copied, name, value(number))
            copied.save()
            if hasattr(copied, "departments"):
                copied.departments.set(company.departments.values())


def rows_to_copy(company: Company) -> list[tuple[Any, dict[str, Any]]]:
    return [
        (company.base_model, {"name": lambda n: f"model-{n}"}),
        (company.first, {"number": lambda n: n + 10}),
        (company.held_out.dataset, {"name": lambda n: f"data-{n}"}),
        (Job.objects.get(pk=company.running.pk), {"pk": lambda n: uuid.uuid4()}),
        (company.pickle, {}),
        (company.live, {}),
        (company.review_open, {"subject_id": lambda n: str(10**9 + n)}),
        (company.deployment, {"name": lambda n: f"served-{n}"}),
        (company.key, {"public_id": lambda n: f"key{n:05d}"}),
        (company.credential, {"name": lambda n: f"provider-{n}"}),
    ]
