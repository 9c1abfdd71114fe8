"""The bill of materials in an evidence pack: CycloneDX, whole and valid."""

from __future__ import annotations

import json

import pytest

from governance.reviews.models import Review
from registry.releases import evidence_mlbom
from registry.releases.evidence_mlbom import mlbom
from registry.releases.models import Release
from registry.versions.models import ModelVersion
from tests.unit.registry.evidence_world import (
    faults,
    files_of,
    office,
    packed,
    release,
)
from tests.unit.registry.objects import stored
from tests.unit.registry.office import Office

__all__ = ["office", "release"]

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]


def test_the_bill_of_materials_names_files_data_base_and_results(
    office: Office, release: Release
) -> None:
    bill = json.loads(mlbom(release))
    model = bill["metadata"]["component"]
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert (model["type"], model["name"]) == ("machine-learning-model", "sentiment")
    assert model["hashes"] == [{"alg": "SHA-256", "content": office.tuned.digest}]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert {each["name"]: each["hashes"][0]["content"] for each in model["components"]} == {
        file["path"]: file["sha256"] for file in office.tuned.manifest["files"]
    }
    (base,) = model["pedigree"]["ancestors"]
    assert (base["name"], base["hashes"][0]["content"]) == ("minilm", office.base.digest)
    assert {each["name"] for each in bill["components"]} == {"train", "test"}
    card = model["modelCard"]
    assert {each["ref"] for each in card["modelParameters"]["datasets"]} == {
        each["bom-ref"] for each in bill["components"]
    }
    assert card["modelParameters"]["task"] == "text-classification"
    measured = card["quantitativeAnalysis"]["performanceMetrics"]
    assert {(each["type"], each["value"]) for each in measured} == {
        ("accuracy", "0.8"),
        ("macro_f1", "0.7"),
    }
    bounds = next(each["confidenceInterval"] for each in measured if each["type"] == "accuracy")
    assert float(bounds["lowerBound"]) < 0.8 < float(bounds["upperBound"])
    (risk,) = release.dossier["risks"]
    assert any(
        each["name"].startswith(risk["hazard"]) and risk["mitigation"] in each["mitigationStrategy"]
        for each in card["considerations"]["ethicalConsiderations"]
    )
    assert card["considerations"]["technicalLimitations"] == [
        "Overseen by the head of the pharmacy."
    ]
    assert mlbom(release) == mlbom(Release.objects.get(pk=release.pk))


def test_the_architecture_is_read_from_the_files_that_the_manifest_names(office: Office) -> None:
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    manifest = stored({"config.json": json.dumps(config).encode(), "model.safetensors": b"x"})
    ModelVersion.objects.filter(pk=office.base.pk).update(
        digest=manifest.digest, manifest=manifest.to_json()
    )
    release = Release.objects.get(pk=office.submit().pk)
    card = json.loads(mlbom(release))["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["architectureFamily"] == "bert"
    assert card["modelParameters"]["modelArchitecture"] == "BertForSequenceClassification"


def test_a_version_of_many_files_has_a_bill_that_the_schema_takes_whole(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = stored({f"part-{n}.safetensors": b"%d" % n for n in range(150)})
    ModelVersion.objects.filter(pk=office.tuned.pk).update(
        digest=manifest.digest, manifest=manifest.to_json()
    )
    office.tuned.refresh_from_db()
    release = office.submit()
    bill = mlbom(release)
    assert len(json.loads(bill)["metadata"]["component"]["components"]) == 150
    monkeypatch.setattr(evidence_mlbom, "CHECKED_ITEMS", 1000)
    assert mlbom(release) == bill


def test_a_bill_that_is_no_cyclonedx_is_not_given_out(office: Office) -> None:
    release = office.submit()
    release.dossier["identity"]["files"][0]["sha256"] = "no digest"
    with pytest.raises(RuntimeError, match="is not valid CycloneDX"):
        mlbom(release)


@pytest.mark.parametrize("license", ["", "Company license (2026)", "MIT"])
def test_any_license_text_makes_a_valid_bill(office: Office, license: str) -> None:
    ModelVersion.objects.filter(pk=office.tuned.pk).update(license=license)
    office.tuned.refresh_from_db()
    release = office.submit()
    model = json.loads(mlbom(release))["metadata"]["component"]
    kind = "id" if license == "MIT" else "name"
    expected = [{"license": {kind: license}}] if license else None
    assert model.get("licenses") == expected


def test_a_base_without_data_and_results_has_one_too(office: Office) -> None:
    release = office.submit(version=office.base, tier="minimal", deployment_name="base")
    assert "pedigree" not in json.loads(mlbom(release))["metadata"]["component"]
    assert Review.objects.filter(subject_id=str(release.pk)).exists()
    assert faults(files_of(packed(office, release))) == {}
