"""A hosted version passes the chain of releases like every version, and ends with its provider."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from governance.errors import InvalidInput, WrongState
from governance.reviews.checklist import checklist_attest
from registry.catalog import get_task
from registry.catalog.code import NO_PACKAGES
from registry.catalog.hosted import HostedDescription, Operation
from registry.catalog.prompt import PROMPT_FILE, PromptDocument
from registry.datasets.models import DatasetVersion
from registry.evaluations.models import Evaluation
from registry.incidents.models import Incident
from registry.manifests import ManifestMismatch
from registry.releases.comparison.build import version_compare
from registry.releases.engines import engines_for, precisions_for
from registry.releases.equivalence.models import EquivalenceOutcome
from registry.releases.equivalence.standing import (
    Standing,
    fingerprint_of,
    named_in,
    standing_in,
)
from registry.releases.evidence_mlbom import mlbom
from registry.releases.exports.hosted import NOT_PINNED
from registry.releases.exports.sections import dossier_sections
from registry.releases.exports.spdx import spdx_document
from registry.releases.models import Release, ReleaseState
from registry.releases.readiness import ReadinessState, version_readiness
from registry.releases.selectors import release_review
from registry.releases.serving import release_servable
from registry.versions.hosted import check_hosted_task
from registry.versions.models import ModelVersion
from registry.versions.weights import measuring_engine
from tests.unit.audit_support import bodies
from tests.unit.registry.hosted_world import (
    GENERATE,
    answered,
    described_as,
    description,
    hosted_version,
)
from tests.unit.registry.objects import data, evaluation, model, version
from tests.unit.registry.office import ATTESTED, Office, proven

pytestmark = pytest.mark.django_db
VENDOR = {
    "vendor-terms",
    "vendor-region",
    "vendor-retention",
    "vendor-subprocessors",
    "vendor-exit",
}


def hosted(office: Office, **changes: Any) -> ModelVersion:
    of = model(office.supplier, office.clinical, f"gpt-{ModelVersion.objects.count()}", GENERATE)
    return hosted_version(of, office.supplier, office.operator, **changes)


def submitted(office: Office, of: ModelVersion, **changes: Any) -> Release:
    return office.submit(
        **{"version": of, "deployment_name": "assistant", "tier": "minimal", **changes}
    )


def approved(office: Office, release: Release) -> Release:
    review = release_review(release)
    assert review is not None
    for code in (*ATTESTED, *sorted(VENDOR)):
        checklist_attest(
            actor=proven(office.compliance), review_id=review.pk, code=code, note="Read it."
        )
    return office.decide(release, office.compliance)


def in_days(days: int) -> str:
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def test_only_the_provider_serves_it_and_a_prompt_on_it(office: Office) -> None:
    gpt = hosted(office)
    prompt = version(gpt.model, office.trainer, "prompt", gpt)
    assert engines_for(gpt) == engines_for(prompt) == ["hosted"]
    assert (measuring_engine(gpt), precisions_for(engines_for(gpt))) == ("hosted", ["stored"])
    with pytest.raises(InvalidInput, match="Assay's own cannot serve"):
        submitted(office, gpt, engine="own")
    with pytest.raises(InvalidInput, match="provider decides on the precision"):
        submitted(office, gpt, precision="float16")
    with pytest.raises(InvalidInput, match="The provider cannot serve"):
        office.submit(engine="hosted")


def test_the_dossier_shows_the_description_what_is_not_pinned_and_the_call(office: Office) -> None:
    gpt = hosted(office)
    release = submitted(office, gpt)
    assert release.dossier["hosted"] == {
        "description": gpt.parameters,
        "probe": answered().model_dump(mode="json"),
        "not_pinned": NOT_PINNED,
    }
    (section,) = [each for each in dossier_sections(release.dossier) if each.code == "hosted"]
    text = json.dumps([[block.text, block.facts] for block in section.blocks])
    for part in ("https://api.example.com/v1", "2.5", "30 days", "Example Cloud", "812 ms", "fp_1"):
        assert part in text
    assert "hosted" not in office.submit().dossier


def test_an_upgrade_of_workers_does_not_suspend_it(office: Office) -> None:
    release = submitted(office, hosted(office))
    stated = release.dossier["software"]["equivalence"]
    assert (stated["policy"], stated["rows"]) == ("alarm", 0)
    named = named_in(release.dossier)
    assert standing_in(named, fingerprint_of({"assay": "2"}), []) is Standing.DUE
    outcomes = [EquivalenceOutcome.UNVERIFIED]
    assert standing_in(named, fingerprint_of({"assay": "2"}), outcomes) is Standing.ACCEPTED
    assert office.submit().dossier["software"]["equivalence"]["policy"] == "suspend"


def test_a_changed_row_is_not_released(office: Office) -> None:
    gpt = hosted(office)
    ModelVersion.objects.filter(pk=gpt.pk).update(parameters={**gpt.parameters, "region": "us"})
    with pytest.raises(ManifestMismatch, match="does not match the digest"):
        submitted(office, gpt)


def test_a_vendor_section_is_required_of_hosted_versions_alone(office: Office) -> None:
    assert not VENDOR & office.checklist(office.submit()).keys()
    release = submitted(office, hosted(office))
    assert office.checklist(release).keys() >= VENDOR
    with pytest.raises(WrongState), transaction.atomic():
        office.approve(release)
    assert approved(office, release).state == ReleaseState.APPROVED
    release_servable(Release.objects.get(pk=release.pk))


def test_the_readiness_panel_names_the_vendor_items_and_the_end(office: Office) -> None:
    gpt = hosted(office, shutdown_on=in_days(50))
    panel = version_readiness(actor=proven(office.submitter), version=gpt)
    assert sum("provider" in title.lower() for title in panel.attested) >= 3
    (end,) = [each for each in panel.requirements if each.code == "provider"]
    assert end.state is ReadinessState.READY
    assert f"ends gpt-4o-2024-08-06 on {in_days(50)}" in end.note
    other = version_readiness(actor=proven(office.submitter), version=office.tuned)
    assert not any("provider" in title.lower() for title in other.attested)
    assert not any(each.code == "provider" for each in other.requirements)
    unstated = hosted(office, shutdown_on=None)
    panel = version_readiness(actor=proven(office.submitter), version=unstated)
    assert any("no shutdown date" in each.note for each in panel.requirements)


@pytest.mark.parametrize(("days", "grace"), [(20, 0), (366, 0), (370, 4), (400, 14)])
def test_an_approval_ends_with_the_provider_s_model(office: Office, days: int, grace: int) -> None:
    ends = datetime.fromisoformat(in_days(days)).replace(tzinfo=UTC)
    release = approved(office, submitted(office, hosted(office, shutdown_on=in_days(days))))
    release.refresh_from_db()
    assert release.state == ReleaseState.APPROVED
    assert release.serves_until is not None
    assert release.serves_until <= ends
    assert release.grace_days == grace or (days == 366 and release.grace_days in (0, 1))
    if days == 20:
        assert release.expires_at == ends
    with pytest.raises(IntegrityError, match="ends its model"), transaction.atomic():
        Release.objects.filter(pk=release.pk).update(expires_at=ends + timedelta(days=1))


def test_a_prompt_on_a_hosted_version_ends_with_it_too(office: Office) -> None:
    gpt = hosted(office, shutdown_on=in_days(20))
    document = {
        "system": "Answer briefly.",
        "template": "{{input}}",
        "variables": [],
        "examples": [],
        "decoding": {},
    }
    content = PromptDocument.read(document)
    prompt = version(
        gpt.model,
        office.trainer,
        "prompt",
        gpt,
        files={PROMPT_FILE: content.canonical()},
        parameters=content.model_dump(mode="json"),
    )
    release = submitted(office, prompt)
    assert release.dossier["hosted"]["description"] == gpt.parameters
    assert release.dossier["hosted"]["probe"]["latency_ms"] == 812
    release = approved(office, release)
    assert release.expires_at is not None
    assert release.expires_at.date().isoformat() == in_days(20)


def test_a_model_that_the_provider_has_ended_is_neither_submitted_nor_approved(
    office: Office,
) -> None:
    gone = hosted(office, shutdown_on="2020-01-01")
    with pytest.raises(WrongState, match="ended gpt-4o-2024-08-06 on 2020-01-01"):
        submitted(office, gone)
    panel = version_readiness(actor=proven(office.submitter), version=gone)
    assert not panel.can_submit


def test_a_comparison_shows_changed_fields_of_the_description(office: Office) -> None:
    before, after = hosted(office), hosted(office, region="us", prices={"prompt": 1})
    compared = version_compare(actor=proven(office.submitter), version=after, other=before)
    changed = {row.name: (row.old, row.new) for row in compared.settings.changed}
    assert changed["region"] == ("eu-central", "us")
    assert changed["prices · prompt"] == (2_500_000, 1)


def test_bills_of_materials_name_an_external_service(office: Office) -> None:
    release = submitted(office, hosted(office))
    bill = json.loads(mlbom(release))
    (service,) = bill["services"]
    assert service["endpoints"] == ["https://api.example.com/v1"]
    assert service["x-trust-boundary"] is True
    assert service["bom-ref"] in bill["dependencies"][0]["dependsOn"]
    assert "An external service: Example AI runs" in spdx_document(release).decode()
    assert "services" not in json.loads(mlbom(office.submit()))


def test_an_operation_serves_the_tasks_that_it_answers_for() -> None:
    chat, vectors = description(), HostedDescription.read(described_as(Operation.EMBEDDINGS))
    check_hosted_task(get_task(GENERATE), chat)
    check_hosted_task(get_task("embeddings"), vectors)
    with pytest.raises(InvalidInput, match="cannot serve the task text-classification"):
        check_hosted_task(get_task("text-classification"))
    for task, other in (("embeddings", chat), (GENERATE, vectors)):
        with pytest.raises(InvalidInput, match=f"cannot serve the task {task}") as refused:
            check_hosted_task(get_task(task), other)
        assert "operation" in refused.value.fields


def test_the_end_is_the_beginning_of_the_day_in_utc() -> None:
    assert description(shutdown_on="2030-05-01").ends_at == datetime(2030, 5, 1, tzinfo=UTC)
    assert description(shutdown_on=None).ends_at is None


def measure(office: Office, gpt: ModelVersion, on: DatasetVersion, chrf: float) -> Evaluation:
    """An evaluation as an egress worker delivers it."""
    interval = {"low": chrf - 2, "high": chrf + 2, "n": on.rows, "method": "bootstrap"}
    stated = {
        "answers": on.rows, "prompt_tokens": 900, "completion_tokens": 100, "estimated": 0,
        "models": ["gpt-4o-2024-08-06"], "fingerprints": [],
    }  # fmt: skip
    return evaluation(
        gpt,
        on,
        office.submitter,
        metrics={"chrf": chrf},
        baseline={},
        baseline_name="",
        details={"engine": "hosted", "provider": stated, "code": NO_PACKAGES.digest},
        intervals={"metrics": {"chrf": interval}},
    )


def test_a_tier_that_requires_an_evaluation_requires_it_of_a_hosted_version(
    office: Office,
) -> None:
    gpt = hosted(office)
    with pytest.raises(InvalidInput, match="was never evaluated"):
        submitted(office, gpt, tier="high")


def test_the_dossier_states_what_the_provider_answered_and_reviewers_judge_drift(
    office: Office,
) -> None:
    gpt = hosted(office)
    turns = [{"role": "user", "content": "Name a city."}, {"role": "assistant", "content": "Rome"}]
    rows = data(office.supplier, office.clinical, "chats", [{"messages": turns}], GENERATE)
    assert measure(office, gpt, rows, 40.0).details["drift"] == {}
    assert measure(office, gpt, rows, 41.0).details["drift"]["metrics"] == {}
    release = submitted(office, gpt)
    text = str(dossier_sections(release.dossier))
    assert "which stated gpt-4o-2024-08-06 and no fingerprint, in" in text
    measure(office, gpt, rows, 40.5)
    release.refresh_from_db()
    # A repetition that confirms the first evaluation does not end a review.
    assert (release.state, Incident.objects.count()) == ("in_review", 0)
    latest = measure(office, gpt, rows, 30.0)
    assert latest.details["drift"]["metrics"] == {"chrf": {"first": 40.0, "now": 30.0}}
    again = submitted(office, gpt, deployment_name="helper")
    evaluated = office.checklist(again)["evaluated"]
    assert "chrf from 40 to 30" in str(evaluated)
    release.refresh_from_db()
    assert release.state == "voided"


def test_drift_is_one_finding_which_the_next_dossier_shows(office: Office) -> None:
    gpt = hosted(office)
    turns = [{"role": "user", "content": "Name a city."}, {"role": "assistant", "content": "Rome"}]
    rows = data(office.supplier, office.clinical, "chats", [{"messages": turns}], GENERATE)
    for chrf in (40.0, 30.0, 29.0):
        measure(office, gpt, rows, chrf)
    incident = Incident.objects.get()
    assert (incident.cause, incident.severity, incident.about) == ("drift", "medium", gpt)
    assert "chrf from 40 to 30" in incident.happened
    (event,) = bodies(action="incident:open")
    assert event["data"]["cause"] == "drift"
    dossier = submitted(office, gpt).dossier
    assert [each["incident"] for each in dossier["hosted"]["findings"]] == [incident.pk]
    text = str(dossier_sections(dossier))
    assert f"Incident {incident.pk} of" in text
    assert "medium, open: Since evaluation" in text
