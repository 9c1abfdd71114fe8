"""Readiness for release: the page, the panel before the form, the API and the command line."""

from __future__ import annotations

import pytest
from django.test import Client

from governance.people.models import Person, RoleAssignment
from registry.datasets.models import Dataset
from registry.evaluations.models import Evaluation
from registry.versions.models import Model
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import SCOPE, inline_in, queries, signed_in
from tests.unit.assay.test_review_comparison import words

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# Pinned: a rise is a decision, not an accident.
QUERIES = {"page": 39, "form": 42}


def page(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    html = answer.content.decode()
    assert inline_in(html) == []
    return html


def test_the_page_says_what_is_missing_and_links_to_where_it_is_fixed(company: Company) -> None:
    address = f"/versions/{company.second.pk}/readiness"
    html = page(signed_in(company.enzo), f"{address}?tier=limited")
    said = words(html)
    assert (
        "Every gate that was set beforehand is passed Missing Blocks approval unless waived" in said
    )
    assert "Failed chrF ≥ 35 on docstrings-test: 31.20" in said
    assert "Passed Perplexity ≤ 12 on docstrings-test: 9.610" in said
    assert 'href="/models/docstring-writer"' in html
    # The missing requirements come first.
    assert said.index(" Missing ") < said.index(" Ready ")
    assert f'href="/versions/{company.second.pk}/release?tier=limited"' in html


def test_the_panel_stands_before_the_release_form_and_follows_its_tier(company: Company) -> None:
    client, address = signed_in(company.enzo), f"/versions/{company.second.pk}/release"
    html = page(client, address)
    assert html.index('id="readiness"') < html.index('name="environment"')
    assert 'hx-trigger="change from:#id_tier"' in html
    # The form is not left by a link within the panel.
    assert "/readiness?tier=" not in html
    followed = page(client, f"/versions/{company.second.pk}/readiness?form=yes&tier=high")
    assert "/readiness?tier=" not in followed
    assert "A reviewer for security is available Missing" in words(followed)
    assert client.get(f"{address}?tier=nonsense").status_code == 200
    assert client.get(f"/versions/{company.second.pk}/readiness?tier=nonsense").status_code == 400


def test_a_refused_form_still_shows_the_panel(company: Company) -> None:
    client = signed_in(company.enzo)
    answer = client.post(f"/versions/{company.second.pk}/release", {"tier": "nonsense"})
    assert answer.status_code == 400
    assert 'id="readiness"' in answer.content.decode()


def test_the_version_page_offers_it_to_those_who_may_see_releases(company: Company) -> None:
    address, link = f"/versions/{company.base.pk}", f"/versions/{company.base.pk}/readiness"
    assert link in page(signed_in(company.enzo), address)
    # The base is shared: finance sees it, and none of its releases.
    assert link not in page(signed_in(company.fay), address)
    assert signed_in(company.fay).get(link).status_code in {403, 404}
    assert signed_in(company.fay).get(f"/versions/{company.second.pk}/readiness").status_code == 404


def test_only_those_who_appoint_reviewers_get_the_link_to_people(company: Company) -> None:
    RoleAssignment.objects.filter(person=company.carla).delete()
    address = f"/versions/{company.second.pk}/readiness"
    for who, offered in ((company.enzo, False), (company.ada, True)):
        html = page(signed_in(who), address)
        assert ("Appoint a reviewer" in html) is offered


def test_pages_cost_the_same_however_much_there_is(company: Company) -> None:
    client = signed_in(company.enzo)
    addresses = {
        "page": f"/versions/{company.second.pk}/readiness",
        "form": f"/versions/{company.second.pk}/release",
    }
    for address in addresses.values():
        client.get(address)
    few = {name: queries(client, address) - SCOPE for name, address in addresses.items()}
    measured = company.second.evaluations.get()
    for number in range(10):
        reviewer = Person.objects.create(email=f"r{number}@assay.example", name=f"R{number}")
        RoleAssignment.objects.create(person=reviewer, role="reviewer", specialty="compliance")
        measured.pk, measured._state.adding = None, True
        measured.job_id = f"00000000-0000-4000-8000-{number:012d}"
        measured.save()
    many = {name: queries(client, address) - SCOPE for name, address in addresses.items()}
    assert many == few == QUERIES


def test_the_api_answers_as_the_page_does(company: Company) -> None:
    path = f"versions/{company.second.pk}/readiness"
    found = Api(company.devi).get(path, tier="high").body
    assert (found["tier"], found["can_submit"]) == ("high", True)
    by_code = {each["code"]: each for each in found["requirements"]}
    assert by_code["gates"]["state"] == "missing"
    assert by_code["gates"]["fix"] == {"page": "model", "id": "docstring-writer"}
    assert by_code["reviewers:security"]["blocks"] == "approval"
    assert by_code["card"]["state"] == "needs_judgment"
    assert "Docstring writer, Limitations" in by_code["card"]["note"]
    assert [(each["state"], each["gate"]["metric"]) for each in found["gates"]] == [
        ("passed", "perplexity"),
        ("failed", "chrf"),
    ]
    assert set(found["tiers"]) == {"minimal", "limited", "general-purpose", "high"}
    problem_of(Api(company.devi).get(path, tier="none"), 400)
    problem_of(Api(company.fay).get(path), 404)
    assert Api(company.fay).get(f"versions/{company.base.pk}/readiness").status_code in {403, 404}


def test_without_an_evaluation_it_cannot_be_submitted(company: Company) -> None:
    Evaluation.objects.filter(version=company.second).delete()
    found = Api(company.devi).get(f"versions/{company.second.pk}/readiness", tier="limited").body
    assert found["can_submit"] is False
    said = words(
        page(signed_in(company.enzo), f"/versions/{company.second.pk}/readiness?tier=limited")
    )
    assert "It was evaluated on held-out data Missing Blocks submission" in said


def test_names_are_shown_as_text(company: Company) -> None:
    Dataset.objects.filter(pk=company.train.dataset.pk).update(license="<script>alert(1)</script>")
    Model.objects.filter(pk=company.writer.pk).update(description="<img src=x>")
    html = page(signed_in(company.enzo), f"/versions/{company.second.pk}/readiness")
    assert "<script>alert" not in html
