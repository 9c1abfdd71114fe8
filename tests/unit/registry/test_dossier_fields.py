"""Written sections of a dossier: checked, bounded, covered by its digest."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from governance.errors import InvalidInput
from governance.people.models import Person
from registry.canonical import json_digest
from registry.releases.dossier_fields import (
    MAX_BYTES,
    MAX_RISKS,
    checked_dossier_fields,
    missing_sections,
)
from registry.releases.models import Release
from registry.releases.services import release_answer, release_withdraw
from tests.proofs import proven
from tests.unit.audit_support import bodies
from tests.unit.registry.office import FIELDS, Office

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def _with(path: str, value: Any) -> dict[str, Any]:
    """`FIELDS` with another value at `path`."""
    fields = deepcopy(FIELDS)
    *way, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    place: Any = fields
    for part in way:
        place = place[part]
    place[last] = value
    return fields


def test_what_was_said_stands_in_the_dossier_beside_what_the_system_knows(office: Office) -> None:
    live = office.approve(office.submit())
    release = office.submit()
    dossier = Release.objects.get(pk=release.pk).dossier
    assert dossier["format"] == 1
    assert dossier["risks"] == [{**FIELDS["risks"][0], "accepter_person": None}]
    assert dossier["oversight"] == {**FIELDS["oversight"], "measures": ""}
    assert dossier["operation"] == {
        **FIELDS["operation"],
        "rollback": {
            "release": live.pk,
            "model": "sentiment",
            "version": 1,
            "digest": office.tuned.digest,
        },
    }
    assert dossier["conformity"] == {**FIELDS["conformity"], "declaration": ""}
    assert "No event is deleted" in dossier["logging"]["retention"]


def test_nothing_said_is_a_dossier_too(office: Office) -> None:
    release = office.submit(dossier_fields=None)
    assert release.dossier_fields == {}
    assert release.dossier["risks"] == []
    assert release.dossier["oversight"] is None
    assert release.dossier["operation"] == {"rollback": None}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("risks.0.residual", "medium"),
        ("oversight.overseers", "The head of the pharmacy."),
        ("operation.monitors", ["Daily."]),
        ("conformity.route", "internal_control"),
    ],
)
def test_the_digest_covers_what_was_said(office: Office, path: str, value: Any) -> None:
    first = office.submit()
    release_withdraw(actor=proven(office.submitter), release_id=first.pk, reason="Again.")
    assert office.submit(dossier_fields=_with(path, value)).dossier_digest != first.dossier_digest


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("extra", 1, "extra"),
        ("risks", {}, "risks"),
        ("risks", FIELDS["risks"] * (MAX_RISKS + 1), "risks"),
        ("risks.0.hazard", " \n", "risks.0.hazard"),
        ("risks.0.hazard", "x" * 501, "risks.0.hazard"),
        ("risks.0.hazard", 7, "risks.0.hazard"),
        ("risks.0.severity", "fatal", "risks.0.severity"),
        ("risks.0.accepter_role", "nobody", "risks.0.accepter_role"),
        ("risks.0.accepter_person", "1", "risks.0.accepter_person"),
        ("risks.0.accepter_person", 2**63 - 1, "risks.0.accepter_person"),
        ("risks.0.owner", "x", "risks.0.owner"),
        ("oversight", "somebody", "oversight"),
        ("oversight.stop_procedure", "", "oversight.stop_procedure"),
        ("oversight.stop_procedure", "Pull\0it", "oversight.stop_procedure"),
        ("oversight.overseers", "\u202egnihton", "oversight.overseers"),
        ("oversight.stop_tested_on", "2026-02-30", "oversight.stop_tested_on"),
        ("oversight.stop_tested_on", "15.1.2026", "oversight.stop_tested_on"),
        ("oversight.stop_tested_on", "2099-01-01", "oversight.stop_tested_on"),
        ("operation.monitors", [], "operation.monitors"),
        ("operation.review_date", "2001-01-01", "operation.review_date"),
        ("conformity.route", "trust us", "conformity.route"),
    ],
)
def test_what_is_malformed_is_refused_and_named(path: str, value: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_dossier_fields(_with(path, value))
    assert f"dossier_fields.{field}" in refused.value.fields


def test_all_of_it_is_bounded(office: Office) -> None:
    risk = {**FIELDS["risks"][0], "mitigation": "x" * 2000}
    with pytest.raises(InvalidInput, match="take more than"):
        checked_dossier_fields({"risks": [risk] * (MAX_BYTES // 2000 + 2)})


def test_a_person_who_left_accepts_no_risk(office: Office) -> None:
    fields = _with("risks.0.accepter_person", office.operator.pk)
    assert checked_dossier_fields(fields)["risks"][0]["accepter_person"] == office.operator.pk
    Person.objects.filter(pk=office.operator.pk).update(
        is_active=False, deactivated_at=timezone.now()
    )
    with pytest.raises(InvalidInput, match="No active person"):
        checked_dossier_fields(fields)


def test_the_stop_procedure_may_have_been_tested_today() -> None:
    today = timezone.now().date()
    checked_dossier_fields(_with("oversight.stop_tested_on", today.isoformat()))
    checked_dossier_fields(_with("operation.review_date", today.isoformat()))
    with pytest.raises(InvalidInput):
        checked_dossier_fields(
            _with("operation.review_date", (today - timedelta(days=1)).isoformat())
        )


@pytest.mark.parametrize(
    ("tier", "needed"),
    [
        ("minimal", []),
        ("limited", ["oversight"]),
        ("high", ["risks", "oversight", "operation", "conformity"]),
        ("general-purpose", ["risks", "oversight", "operation", "conformity"]),
        ("a tier of next year", ["risks", "oversight", "operation", "conformity"]),
    ],
)
def test_a_tier_asks_for_sections(tier: str, needed: list[str]) -> None:
    assert missing_sections(tier, {}) == needed
    assert missing_sections(tier, checked_dossier_fields(FIELDS)) == []
    assert (
        missing_sections(tier, {"risks": [], "operation": {"rollback": {"release": 1}}}) == needed
    )


@pytest.mark.parametrize(
    ("tier", "fields", "state", "note"),
    [
        ("limited", {}, "failed", "Missing: oversight."),
        ("limited", {"oversight": FIELDS["oversight"]}, "satisfied", "is filled in"),
        (
            "high",
            {"risks": FIELDS["risks"]},
            "failed",
            "Missing: oversight, operation, conformity.",
        ),
        ("high", FIELDS, "satisfied", "is filled in"),
        ("general-purpose", {}, "failed", "Missing: risks, oversight, operation, conformity."),
    ],
)
def test_the_checklist_says_what_the_dossier_lacks(
    office: Office, tier: str, fields: dict[str, Any], state: str, note: str
) -> None:
    checked = office.checklist(office.submit(tier=tier, dossier_fields=fields))["dossier-complete"]
    assert checked[0] == state
    assert note in checked[1]


def test_a_minimal_tier_asks_for_none(office: Office) -> None:
    release = office.submit(tier="minimal", dossier_fields={})
    assert "dossier-complete" not in office.checklist(release)


def test_an_answer_says_it_anew_or_leaves_it(office: Office) -> None:
    release = office.submit()
    actor = proven(office.submitter)
    office.decide(release, office.compliance, "request_changes")
    same = release_answer(actor=actor, release_id=release.pk, message="Read it again.")
    assert same.dossier["oversight"]["overseers"] == FIELDS["oversight"]["overseers"]
    office.decide(same, office.compliance, "request_changes")
    fields = _with("oversight.overseers", "The head of the pharmacy.")
    release = release_answer(
        actor=actor, release_id=release.pk, message="Said who.", dossier_fields=fields
    )
    stored = Release.objects.get(pk=release.pk)
    assert stored.dossier_fields["oversight"]["overseers"] == "The head of the pharmacy."
    assert stored.dossier["oversight"]["overseers"] == "The head of the pharmacy."
    assert stored.dossier_digest == json_digest(stored.dossier) != same.dossier_digest
    assert "head of the pharmacy" not in str(bodies(subject_type="release"))
