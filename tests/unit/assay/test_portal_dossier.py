"""The dossier in the portal: said in forms, read in sections, taken along as files."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from governance.people.models import Person
from registry.intake.models import Intake
from registry.releases.exports.services import FORMATS
from registry.releases.models import Release
from registry.releases.selectors import release_review
from registry.versions.models import ModelVersion
from tests.unit.assay.test_review_policies_surfaces import YES_NO
from tests.unit.registry.office import ANSWERS, FIELDS, Office

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

ASKED: dict[str, Any] = {
    **dict.fromkeys(YES_NO, "no"),
    "environment": "production",
    "deployment_name": "review-sentiment",
    "visibility": "department",
    "tier": "limited",
    "purpose": "Sort reviews.",
    **{name: value for name, value in ANSWERS.items() if value is not False},
}
SAID = {
    "risk-0-hazard": "A complaint is sorted as praise.",
    "risk-0-likelihood": "possible",
    "risk-0-severity": "serious",
    "risk-0-mitigation": "Pharmacists read on.",
    "risk-0-residual": "low",
    "risk-0-accepter_role": "lead",
    "risk-4-hazard": "It is asked for something else.",
    "risk-4-likelihood": "rare",
    "risk-4-severity": "minor",
    "risk-4-mitigation": "The keys name one purpose.",
    "risk-4-residual": "low",
    "risk-4-accepter_role": "model-risk",
    "dossier-overseers": "The pharmacists on duty.",
    "dossier-stop_procedure": "Stop the deployment.",
    "dossier-stop_tested_on": "2026-01-15",
    "dossier-monitors": "Share of praise.\r\n\r\n Length of reviews. ",
    "dossier-incident_contact": "oncall@example.org",
    "dossier-review_date": "2099-01-01",
    "dossier-route": "voluntary",
    "dossier-standards": "ISO/IEC 42001:2023",
}


def browser(person: Person) -> Client:
    client = Client()
    client.force_login(person)
    return client


def asked(office: Office, **said: str) -> Any:
    return browser(office.submitter).post(
        f"/versions/{office.tuned.pk}/release",
        {**ASKED, "departments": [office.clinical.pk], "dossier-route": "", **said},
    )


def test_a_request_says_risks_oversight_operation_and_conformity(office: Office) -> None:
    page = browser(office.submitter).get(f"/versions/{office.tuned.pk}/release").content.decode()
    assert 'name="risk-9-hazard"' in page
    assert "Limited risk requires oversight; higher tiers require all four sections." in page
    answer = asked(office, **SAID)
    assert answer.status_code == 302, answer.content.decode()
    release = Release.objects.get()
    first, second = release.dossier["risks"]
    assert (first["hazard"], first["accepter_role"]) == (SAID["risk-0-hazard"], "lead")
    assert second["mitigation"] == "The keys name one purpose."
    assert release.dossier["oversight"]["stop_tested_on"] == "2026-01-15"
    assert release.dossier["operation"]["monitors"] == ["Share of praise.", "Length of reviews."]
    assert release.dossier["conformity"]["standards"] == ["ISO/IEC 42001:2023"]


def test_people_are_chosen_by_address_and_shown_by_name(office: Office) -> None:
    accepts = {**SAID, "risk-0-accepter_person": office.operator.email.upper()}
    wrong = asked(office, **{**accepts, "risk-0-accepter_person": "nobody@example.org"})
    assert wrong.status_code == 400
    assert "No active person has this address." in wrong.content.decode()
    assert asked(office, **accepts).status_code == 302
    release = Release.objects.get()
    assert release.dossier["risks"][0]["accepter_person"] == office.operator.pk

    client = browser(office.submitter)
    page = client.get(f"/releases/{release.pk}").content.decode()
    shown = page.partition('id="dossier-')[2]
    assert f"lead, {office.operator.name}" in shown
    assert office.submitter.name in shown
    assert not re.search(r"\bperson [0-9]", shown)
    # In the bytes that reviewers approve, people stay numbers.
    assert release.dossier["release"]["submitted_by"] == f"person {office.submitter.pk}"
    form = client.get(f"/versions/{office.tuned.pk}/release?like={release.pk}").content.decode()
    assert f'value="{office.operator.email}"' in form


def test_nothing_said_is_nothing_said(office: Office) -> None:
    assert asked(office).status_code == 302
    assert Release.objects.get().dossier_fields == {}


def test_what_is_incomplete_is_named_and_what_was_typed_stays(office: Office) -> None:
    answer = asked(office, **{"risk-2-hazard": "It may be wrong.", "dossier-overseers": "Us."})
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "risks.0.likelihood" in page
    assert "oversight.stop_procedure" in page
    assert "It may be wrong." in page
    assert not Release.objects.exists()


def test_an_answer_says_it_anew(office: Office) -> None:
    release = office.submit(dossier_fields={"oversight": FIELDS["oversight"]})
    office.decide(release, office.compliance, "request_changes")
    review = release_review(release)
    assert review is not None
    client = browser(office.submitter)
    page = client.get(f"/reviews/{review.pk}").content.decode()
    assert FIELDS["oversight"]["stop_procedure"] in page
    before = {
        "dossier-overseers": FIELDS["oversight"]["overseers"],
        "dossier-stop_procedure": FIELDS["oversight"]["stop_procedure"],
        "dossier-stop_tested_on": "2026-01-15",
        "dossier-route": "",
    }
    client.post(f"/reviews/{review.pk}/answer", {"message": "Read again.", **before})
    assert Release.objects.get().dossier_fields == release.dossier_fields
    office.decide(Release.objects.get(), office.compliance, "request_changes")
    anew = {
        **before,
        "dossier-overseers": "The head of the pharmacy.",
        "dossier-route": "voluntary",
    }
    client.post(f"/reviews/{review.pk}/answer", {"message": "Said who.", **anew})
    dossier = Release.objects.get().dossier
    assert dossier["oversight"]["overseers"] == "The head of the pharmacy."
    assert dossier["oversight"]["stop_tested_on"] == "2026-01-15"
    assert dossier["conformity"]["route"] == "voluntary"


def test_the_dossier_is_read_in_sections_on_the_release_and_in_its_review(office: Office) -> None:
    release = office.submit(purpose="<img src=x onerror=alert(1)>")
    review = release_review(release)
    assert review is not None
    client = browser(office.compliance)
    for path in (f"/releases/{release.pk}", f"/reviews/{review.pk}?tab=dossier"):
        page = client.get(path).content.decode()
        assert "<img src=x" not in page
        for part in ("oversight", "operation", "testing", "risks", "conformity", "identity"):
            assert f'id="dossier-{part}"' in page
        assert FIELDS["risks"][0]["mitigation"] in page
        assert "How to stop it" in page
        links = re.findall(rf'href="(/releases/{release.pk}/export/\w+)"', page)
        assert links == [f"/releases/{release.pk}/export/{name}" for name in FORMATS]


def test_the_links_give_files_and_to_another_department_none(
    office: Office, person: Callable[..., Person]
) -> None:
    release = office.submit()
    client, stranger = browser(office.compliance), browser(person("Fay", "lead@finance"))
    for name, each in FORMATS.items():
        answer = client.get(f"/releases/{release.pk}/export/{name}")
        assert answer["Content-Type"] == each.content_type
        assert answer["Content-Disposition"].startswith("attachment;")
        assert stranger.get(f"/releases/{release.pk}/export/{name}").status_code == 404
    assert client.get(f"/releases/{release.pk}/export/docx").status_code == 400


def test_code_that_is_not_known_is_shown_escaped_where_it_is_signed_and_reviewed(
    office: Office,
) -> None:
    found = {
        "kind": "chat template",
        "path": "chat_template.jinja",
        "sha256": "ab" * 32,
        "characters": 50_000,
        "shown": "{{ '<script>alert(1)</script>' }}",
        "known": "",
    }
    ModelVersion.objects.filter(pk=office.base.pk).update(code=[found])
    Intake.objects.filter(version=office.base).update(code=[{**found, "known": "SmolLM2"}])
    release = office.submit()
    review = release_review(release)
    assert review is not None
    client = browser(office.compliance)
    for path in (f"/versions/{office.base.pk}", f"/reviews/{review.pk}"):
        page = client.get(path).content.decode()
        assert "Unknown chat template" in page
        assert "{{ &#x27;&lt;script&gt;alert(1)&lt;/script&gt;&#x27; }}" in page
        assert f"{50_000 - len(found['shown'])} more characters" in page
        assert "<script>alert" not in page
    assert "minilm v1" in page
    signed = browser(office.operator).get(f"/intakes/{Intake.objects.get().pk}").content.decode()
    assert "Well known" in signed
    dossier = client.get(f"/reviews/{review.pk}?tab=dossier").content.decode()
    assert 'id="dossier-code"' in dossier
    assert "Chat template of minilm v1: not a known one" in dossier
