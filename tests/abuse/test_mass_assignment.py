"""A body says what its description lists and nothing else: not whose it is, in which state, and who
approved it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from governance.keys.models import ApiKey
from governance.people.models import Person
from governance.reviews.models import Decision
from registry.releases.models import Release
from registry.versions.models import Model
from tests.abuse.company import address_book, browser, caller, values
from tests.abuse.database import digests, undone
from tests.abuse.surface import JSON, MULTIPART, body_of, filled, operations, send
from tests.unit.assay.portal_data import Company

# Fields that an attacker would like to set, with a value that would gain something.
COVETED: dict[str, Any] = {
    "approved_at": "2026-01-01T00:00:00Z",
    "approved_by": 1,
    "attested_by": 1,
    "authors": [],
    "created_by": 1,
    "decided_by": 1,
    "department": "finance",
    "department_id": 1,
    "digest": "0" * 64,
    "dossier": {},
    "dossier_digest": "0" * 64,
    "expires_at": "2040-01-01T00:00:00Z",
    "fence": 99,
    "granted_by": 1,
    "id": 1,
    "is_active": True,
    "is_staff": True,
    "is_superuser": True,
    "owner": 1,
    "person": 1,
    "person_id": 1,
    "pk": 1,
    "policy_version": 1,
    "proposed_by": 1,
    "public_id": "chosen",
    "required_approvals": {},
    "revoked_at": None,
    "role": "admin",
    "roles": ["admin"],
    "round": 9,
    "scopes": ["*"],
    "secret_hmac": "00",
    "shared": True,
    "signed_by": 1,
    "source": "manual",
    "state": "approved",
    "submitted_by": 1,
    "tier": "minimal",
    "version": 1,
    "_state": {},
    "__class__": "Person",
}


def batched(names: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]


@pytest.mark.sweep
def test_no_body_takes_a_member_that_it_does_not_list(company: Company) -> None:
    """The coveted members in every body that does not list them, by those who may do the most, in
    turn: 400, by each member's name, and nothing changes."""
    book, known = address_book(company), values(company)
    names = ("an admin", "a lead of engineering", "a security reviewer")
    clients = {name: caller(company, name) for name in names}
    faults = []
    for operation in operations():
        if not operation.media:
            continue
        path, plain = filled(operation, book), body_of(operation, known)
        coveted = sorted(COVETED.keys() - operation.fields.keys())
        for number, members in enumerate(batched(coveted, 10)):
            is_form = operation.media == MULTIPART
            more = {each: str(COVETED[each]) if is_form else COVETED[each] for each in members}
            for name in (names[0], names[1 + number % 2]):
                client = clients[name]
                before = digests()
                with undone():
                    response = send(client, operation, path, {**plain, **more})
                    told = response.content.decode()
                    fine = response.status_code in {401, 403, 404} or (
                        response.status_code == 400 and all(each in told for each in members)
                    )
                    if not fine or digests() != before:
                        faults.append((str(operation), members, name, response.status_code))
    assert faults == []


@pytest.mark.sweep
def test_no_address_without_a_body_takes_one(company: Company) -> None:
    book = address_book(company)
    client = caller(company, "an admin")
    faults = []
    for operation in operations():
        if operation.media or operation.method not in {"POST", "PUT", "PATCH"}:
            continue
        before = digests()
        with undone():
            response = send(client, operation, filled(operation, book), {"state": "approved"})
            if response.status_code != 400 or digests() != before:
                faults.append((str(operation), response.status_code))
    assert faults == []


def test_a_member_given_twice_is_refused(company: Company) -> None:
    """Else a proxy might check the first and we take the last."""
    client = caller(company, "a lead of engineering")
    raw = (
        '{"name": "x1", "task": "embeddings", "department": "engineering", "department": "finance"}'
    )
    assert client.post("/api/v1/models", raw, content_type=JSON).status_code == 400
    assert not Model.objects.filter(name="x1").exists()


def test_a_page_ignores_what_its_form_does_not_ask_for(company: Company) -> None:
    """The portal's forms, with the coveted members beside their own fields."""
    lead = browser(company, "a lead of engineering")
    more = {name: str(value) for name, value in COVETED.items()}
    form = {
        "name": "mine", "task": "embeddings", "description": "",
        "department": company.departments["engineering"].pk,
    }  # fmt: skip
    lead.post("/models/new", {**more, **form, "shared": ""})
    made = Model.objects.get(name="mine")
    assert (made.department.slug, made.shared) == ("engineering", False)
    assert made.created_by.name == "A Lead Of Engineering"

    admin = browser(company, "an admin")
    form = {"email": "new@assay.example", "name": "New", "password": ""}
    admin.post("/people", {**more, **form})
    person = Person.objects.get(email="new@assay.example")
    assert not person.role_assignments.exists()
    assert person.pk != 1


def test_a_vote_is_cast_by_who_sends_it(company: Company) -> None:
    review = company.review_open
    reviewer = browser(company, "a compliance reviewer")
    body = {
        "verdict": "comment", "reason": "By whom?", "digest": review.digest,
        "person": company.milo.pk, "person_id": company.milo.pk, "submitter": company.fay.pk,
        "round": 1, "created_at": "2020-01-01",
    }  # fmt: skip
    assert reviewer.post(f"/reviews/{review.pk}/decide", body).status_code == 302
    vote = Decision.objects.get(reason="By whom?")
    assert vote.person.name == "A Compliance Reviewer"
    assert (vote.submitter_id, vote.round) == (review.opened_by_id, review.round)


def test_a_release_is_asked_for_and_not_approved_by_its_request(company: Company) -> None:
    client = caller(company, "a lead of engineering")
    operation = next(each for each in operations() if each.name == "releases_post")
    body = {**body_of(operation, values(company)), "state": "approved", "approved_by": 1}
    assert send(client, operation, operation.path, body).status_code == 400
    assert not Release.objects.filter(deployment_name="mallory").exists()


def test_a_key_cannot_be_given_scopes_that_do_not_exist(company: Company) -> None:
    client = caller(company, "a lead of engineering")
    before = ApiKey.objects.count()
    for scopes in (["*"], ["admin"], ["deployment:*"], [{"a": 1}], "deployment:invoke", [None], []):
        body = {"department": "engineering", "name": "k", "scopes": scopes}
        answer = client.post("/api/v1/keys", body, content_type=JSON)
        assert answer.status_code == 400, scopes
    assert ApiKey.objects.count() == before
