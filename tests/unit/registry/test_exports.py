"""A dossier on its way out: each format whole, valid, the same each time, and nobody else's."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from spdx_python_model import v3_0_1 as spdx

from governance.errors import InvalidInput, NotFound, WrongState
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from registry.canonical import json_digest
from registry.releases.exports import pdf
from registry.releases.exports.services import FORMATS, Export, release_export
from registry.releases.models import Release
from registry.versions.models import ModelVersion
from tests.unit.registry.evidence_world import faults, files_of, packed
from tests.unit.registry.objects import version
from tests.unit.registry.office import ANSWERS, FIELDS, Office

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]

# Controls, marks that turn the direction, right-to-left, what few fonts hold, markup, no space.
HOSTILE = (
    "\x07\x1b[31m\u202egnp.exe\u202c \u2066x\u2069 مرحبا שלום 漢字 \U0001f600 e\u0301 {nb} %PDF "
    "<script>alert(1)</script> & \" ' **bold** \\ "
)


def exported(office: Office, release: Release, format: str) -> Export:  # noqa: A002
    return release_export(
        actor=principal_for_person(office.compliance), release_id=release.pk, format=format
    )


def changed(release: Release, **members: Any) -> Release:
    """`release` with other members in its dossier, under the digest of that."""
    dossier = {**release.dossier, **members}
    Release.objects.filter(pk=release.pk).update(
        dossier=dossier, dossier_digest=json_digest(dossier)
    )
    return Release.objects.get(pk=release.pk)


def pages_of(export: Export) -> list[str]:
    return [page.extract_text() for page in PdfReader(io.BytesIO(export.content)).pages]


def test_the_baselines_of_an_evaluation_are_in_the_pages(office: Office) -> None:
    release = office.submit()
    (measured,) = release.dossier["evaluations"]
    assert "baselines" not in measured
    linear = {"name": "TF-IDF + logistic regression", "metrics": {"accuracy": 0.755},
              "trained_on": 4000}  # fmt: skip
    told = changed(release, evaluations=[{**measured, "baselines": [linear]}])
    page = exported(office, told, "html").content.decode()
    assert "Baselines on the same rows" in page
    assert "TF-IDF + logistic regression" in page
    assert "0.755" in page


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_dossier_gives_the_same_bytes(office: Office, format: str) -> None:  # noqa: A002
    release = office.submit()
    first = exported(office, release, format)
    # An export does not contain later decisions.
    assert first == exported(office, office.approve(release), format)
    assert release.dossier_digest[:12] in first.name
    assert first.content != exported(office, changed(release, purpose="Other."), format).content


def test_pages_name_people_whom_the_json_names_by_number(office: Office) -> None:
    release = office.submit()
    risks = [{**release.dossier["risks"][0], "accepter_person": office.risk.pk}]
    person = f"person {office.trainer.pk}"
    release = changed(release, risks=risks, card=f"Trained by {person}, not by person 999999.")
    page = exported(office, release, "html").content.decode()
    text = " ".join(" ".join(pages_of(exported(office, release, "pdf"))).split())
    for shown in (page, text):
        assert f"Trained by {office.trainer.name}, not by person 999999." in shown
        assert f", {office.risk.name}" in shown
        assert person not in shown
    assert f"<td>{office.trainer.pk}</td><td>{office.trainer.name}</td>" in page
    assert person in exported(office, release, "json").content.decode()


def test_json_is_the_bytes_of_the_digest(office: Office) -> None:
    release = office.submit()
    export = exported(office, release, "json")
    assert hashlib.sha256(export.content).hexdigest() == release.dossier_digest
    assert export.sha256.hex() == release.dossier_digest
    assert json.loads(export.content) == release.dossier


def test_what_people_said_and_what_was_measured_is_in_the_pages(office: Office) -> None:
    release = office.submit()
    page = exported(office, release, "html").content.decode()
    text = "\n".join(pages_of(exported(office, release, "pdf")))
    for shown in (page, " ".join(text.split())):
        assert FIELDS["oversight"]["stop_procedure"] in shown
        assert FIELDS["operation"]["incident_contact"] in shown
        assert "ISO/IEC 42001:2023" in shown
        assert release.dossier_digest in shown
        assert office.tuned.manifest["files"][0]["sha256"] in shown
        assert "Gates, set beforehand" in shown
        assert "2026-01-15" in shown
    assert "accuracy &gt;= 0.75" in page
    low, high = (
        release.dossier["evaluations"][0]["intervals"]["metrics"]["accuracy"][n]
        for n in ("low", "high")
    )
    assert f"{low:.4g} to {high:.4g}" in page
    assert "Page 1 of " in text


@pytest.mark.parametrize("format", FORMATS)
def test_hostile_text_breaks_no_format(office: Office, format: str) -> None:  # noqa: A002
    long = (HOSTILE + "x" * 400) * 20
    release = changed(
        office.submit(),
        purpose=long[:10_000],
        card=long,
        risk={"tier": "limited", "answers": {**ANSWERS, "notes": long[:4000], HOSTILE: [HOSTILE]}},
        risks=[{**FIELDS["risks"][0], "hazard": HOSTILE, "mitigation": long[:2000]}] * 20,
        oversight={"overseers": HOSTILE, "stop_procedure": "\n" * 1999 + "x"},
    )
    content = exported(office, release, format).content
    assert 1000 < len(content) < 2_000_000
    if format == "html":
        assert b"<script" not in content
        assert b"&lt;script&gt;" in content
    if format == "pdf":
        text = "".join(pages_of(exported(office, release, format)))
        assert "\u202e" not in text
        assert "[U+202E]gnp.exe" in text
        assert "<script>alert(1)</script>" in text
        assert "{nb}" in text
    if format in ("cyclonedx", "spdx", "json"):
        json.loads(content)


def test_the_pdf_of_a_huge_dossier_is_cut_and_says_so(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf, "MAX_CHARACTERS", 5000)
    release = changed(office.submit(), purpose="word " * 2000)
    pages = pages_of(exported(office, release, "pdf"))
    assert "Cut here. The whole dossier is in its JSON" in pages[-1]
    assert len(pages) < 5


@pytest.mark.parametrize("format", FORMATS)
def test_who_may_not_see_the_release_gets_none(
    office: Office,
    person: Callable[..., Person],
    format: str,  # noqa: A002
) -> None:
    release = office.submit()
    stranger = principal_for_person(person("Fay", "lead@finance"))
    with pytest.raises(NotFound):
        release_export(actor=stranger, release_id=release.pk, format=format)


def test_another_format_is_refused_and_named(office: Office) -> None:
    with pytest.raises(InvalidInput) as refused:
        exported(office, office.submit(), "docx")
    assert "format" in refused.value.fields


def test_a_dossier_that_is_not_that_of_its_digest_is_not_exported(office: Office) -> None:
    release = office.submit()
    Release.objects.filter(pk=release.pk).update(dossier={**release.dossier, "purpose": "Other."})
    with pytest.raises(WrongState, match="does not have the digest"):
        exported(office, release, "json")


# --- SPDX -----------------------------------------------------------------------------------------


def read_spdx(content: bytes) -> Any:
    """The document as the classes of the standard's shapes read it; they refuse what is no SPDX."""
    objects = spdx.SHACLObjectSet()
    spdx.JSONLDDeserializer().read(io.BytesIO(content), objects)
    assert objects.link() <= {
        "https://spdx.org/rdf/3.0.1/terms/ExpandedLicensing/NoAssertionLicense"
    }
    return objects


def of_type(objects: Any, kind: str) -> list[Any]:
    return list(objects.foreach_type(getattr(spdx, kind)))


def relations(objects: Any) -> set[tuple[str, str, str]]:
    """(from, how, to), by name where there is one."""

    def called(element: Any) -> str:
        return str(getattr(element, "name", None) or getattr(element, "spdxId", element))

    return {
        (called(each.from_), each.relationshipType.rpartition("/")[2], called(to))
        for each in of_type(objects, "Relationship")
        for to in each.to
    }


def test_spdx_names_the_model_its_files_its_data_and_its_base(office: Office) -> None:
    release = office.submit(tier="high")
    objects = read_spdx(exported(office, release, "spdx").content)
    (document,) = of_type(objects, "SpdxDocument")
    model = document.rootElement[0]
    assert (model.name, model.software_packageVersion) == ("sentiment", "1")
    assert [each.hashValue for each in model.verifiedUsing] == [office.tuned.digest]
    assert {each.key: each.value for each in model.ai_metric}["accuracy, test v1"] == "0.8"
    assert {each.key: each.value for each in model.ai_metricDecisionThreshold} == {
        "accuracy, test v1": ">= 0.75"
    }
    assert {each.key: each.value for each in model.ai_hyperparameter}["epochs"] == "2"
    assert model.ai_autonomyType.endswith("/no")
    assert model.ai_safetyRiskAssessment.endswith("/low")
    assert list(model.ai_standardCompliance) == ["ISO/IEC 42001:2023"]
    assert {
        each.name: each.verifiedUsing[0].hashValue for each in of_type(objects, "software_File")
    } == {file["path"]: file["sha256"] for file in office.tuned.manifest["files"]}
    data = {each.name: each for each in of_type(objects, "dataset_DatasetPackage")}
    assert data["train"].verifiedUsing[0].hashValue == office.train.digest
    assert data["train"].dataset_confidentialityLevel.endswith("/green")
    found = relations(objects)
    assert ("sentiment", "trainedOn", "train") in found
    assert ("sentiment", "testedOn", "test") in found
    assert ("sentiment", "descendantOf", "minilm") in found
    assert ("sentiment", "contains", "model.safetensors") in found


def test_an_adapter_depends_on_its_base(office: Office) -> None:
    adapter = version(office.tuned.model, office.trainer, "adapter", office.base)
    release = office.submit(version=adapter, tier="minimal")
    objects = read_spdx(exported(office, release, "spdx").content)
    assert ("sentiment", "dependsOn", "minilm") in relations(objects)
    assert not of_type(objects, "dataset_DatasetPackage")


@pytest.mark.parametrize("license", ["", "MIT", "Company license (2026)", "(((", "<b>"])
def test_any_license_text_makes_a_valid_document(office: Office, license: str) -> None:
    ModelVersion.objects.filter(pk=office.tuned.pk).update(license=license)
    office.tuned.refresh_from_db()
    objects = read_spdx(exported(office, office.submit(), "spdx").content)
    declared = {
        to for one, how, to in relations(objects) if one == "sentiment" and "Declared" in how
    }
    assert len(declared) == 1
    assert ("NoAssertion" in declared.pop()) == (not license)


def test_what_is_no_spdx_is_not_given_out(office: Office) -> None:
    release = office.submit()
    release.dossier["identity"]["files"][0]["path"] = 7
    with pytest.raises((TypeError, ValueError)):
        FORMATS["spdx"].make(release)


# --- The evidence pack ----------------------------------------------------------------------------


def test_a_pack_holds_the_same_documents(office: Office, settings: Any, tmp_path: Path) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    release = office.submit()
    files = files_of(packed(office, release))
    for name, file in (
        ("pdf", "dossier.pdf"),
        ("json", "dossier.json"),
        ("cyclonedx", "mlbom.cdx.json"),
        ("spdx", "model.spdx.json"),
    ):
        assert files[file] == exported(office, release, name).content
    assert faults(files) == {}
