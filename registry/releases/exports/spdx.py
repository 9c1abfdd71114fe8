"""The model of a release as SPDX 3.0.1 with its AI and dataset profiles, as JSON-LD.

The library's classes are generated from the standard's own SHACL shapes: an invalid value, or a
missing required one, raises an error while the document is written.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from registry.catalog import TASKS
from registry.datasets.models import DatasetVersion
from registry.releases.evidence_archive import readable_json
from registry.releases.evidence_mlbom import architecture, license_id
from registry.releases.exports.words import worded
from registry.releases.models import Release
from registry.versions.models import VersionKind
from registry.versions.selectors import base_chain

_COMMENT = "Made from a release's frozen dossier; NoAssertion stands where that says nothing."
_NO_ASSERTION = "https://spdx.org/rdf/3.0.1/terms/ExpandedLicensing/NoAssertionLicense"
_PROFILES = ("core", "software", "ai", "dataset", "simpleLicensing")
_CONFIDENTIALITY = {
    "public": "clear",
    "internal": "green",
    "confidential": "amber",
    "restricted": "red",
}
_RESIDUAL = ("low", "medium", "high")
_DATASET_TYPES = {"text", "image", "audio", "video", "timeseries", "structured"}


def spdx_document(release: Release) -> bytes:
    """Return the SPDX document of the dossier; the same bytes for the same dossier.

    Raises:
        ValueError: it does not conform to SPDX 3.0.1.
    """
    return readable_json(_Document(release).written())


class _Document:
    """Elements with URIs below the document's, and their relationships."""

    def __init__(self, release: Release) -> None:
        from spdx_python_model.bindings.v3_0_1 import model

        self.spdx: Any = model
        self.release, self.dossier = release, release.dossier
        self.frozen_at = _moment(release.created_at)
        self.name = f"urn:uuid:{uuid5(NAMESPACE_URL, release.dossier_digest)}"
        self.elements: list[Any] = []
        self.licenses: dict[str, Any] = {}
        self.info = model.CreationInfo(
            created=self.frozen_at, specVersion="3.0.1", comment=_COMMENT
        )
        self.maker = self._add("Organization", "supplier", name=release.department.slug)
        self.info.createdBy = [self.maker]

    def written(self) -> dict[str, Any]:
        model = self._model()
        self._files(model)
        self._bases(model)
        self._data(model)
        profile = self.spdx.ProfileIdentifierType
        document = self.spdx.SpdxDocument(
            spdxId=self.name,
            creationInfo=self.info,
            name=f"Dossier {self.release.dossier_digest}",
            rootElement=[model],
            element=self.elements,
            profileConformance=[getattr(profile, name) for name in _PROFILES],
        )
        objects = self.spdx.SHACLObjectSet([self.info, document, *self.elements])
        written: dict[str, Any] = self.spdx.JSONLDSerializer().serialize_data(objects, True)
        return written

    def _model(self) -> Any:
        identity, answers = self.dossier["identity"], self.dossier["risk"]["answers"]
        conformity = self.dossier.get("conformity") or {}
        personal = answers.get("personal_data", True)
        purposes = dict.fromkeys([self.dossier["purpose"], answers.get("intended_purpose", "")])
        model = self._package(
            "model",
            identity,
            self.frozen_at,
            ai_domain=[identity["task"]],
            ai_typeOfModel=list(architecture(self.release).values()),
            ai_autonomyType=self._presence(answers.get("autonomy") == "decides"),
            ai_hyperparameter=self._entries(self.dossier["training"]["parameters"].items()),
            ai_metric=self._entries(self._measured()),
            ai_metricDecisionThreshold=self._entries(self._thresholds()),
            ai_informationAboutApplication="\n".join(each for each in purposes if each),
            ai_informationAboutTraining=self._training(),
            ai_standardCompliance=list(conformity.get("standards") or ()),
            # Personal data need not be sensitive; without any, none is sensitive.
            ai_useSensitivePersonalInformation=self.spdx.PresenceType.noAssertion
            if personal
            else self.spdx.PresenceType.no,
        )
        if "hosted" in self.dossier:
            hosted = self.dossier["hosted"]["description"]
            model.comment = (
                f"An external service: {hosted['provider']} runs {hosted['model']} in "
                f"{hosted['region']}, at {hosted['base_url']}; the package holds its description "
                f"alone. {self.dossier['hosted']['not_pinned']}"
            )
        if answers.get("notes"):
            model.ai_limitation = answers["notes"]
        if risks := self.dossier.get("risks"):
            worst = max((each["residual"] for each in risks), key=_RESIDUAL.index)
            model.ai_safetyRiskAssessment = getattr(self.spdx.ai_SafetyRiskAssessmentType, worst)
        return model

    def _package(self, code: str, about: Mapping[str, Any], released: datetime, **more: Any) -> Any:
        """Add a model's version as an AI package."""
        package = self._add(
            "ai_AIPackage",
            code,
            name=about["model"],
            software_packageVersion=str(about["version"]),
            software_primaryPurpose=self.spdx.software_SoftwarePurpose.model,
            software_downloadLocation=_location(about["digest"]),
            releaseTime=released,
            suppliedBy=self.maker,
            verifiedUsing=[self._hash(about["digest"], "Of the manifest of its files.")],
            **more,
        )
        self._license(package, about["license"])
        return package

    def _files(self, model: Any) -> None:
        files = [
            self._add(
                "software_File",
                f"file-{number}",
                name=file["path"],
                verifiedUsing=[self._hash(file["sha256"])],
            )
            for number, file in enumerate(self.dossier["identity"]["files"], 1)
        ]
        self._relate(model, "contains", files)

    def _bases(self, model: Any) -> None:
        """Add the bases: an adapter depends on its base, a full model only descends from it."""
        times = {each.digest: each.created_at for each in base_chain(self.release.version)}
        above, kind = model, self.dossier["identity"]["kind"]
        for number, base in enumerate(self.dossier["identity"]["bases"], 1):
            released = times.get(base["digest"], self.release.created_at)
            package = self._package(f"base-{number}", base, _moment(released))
            whole = kind == VersionKind.FULL
            self._relate(above, "descendantOf" if whole else "dependsOn", [package])
            above, kind = package, base["kind"]

    def _data(self, model: Any) -> None:
        datasets: dict[str, Any] = {}
        if (data := self.dossier["data"]) is not None:
            datasets[data["digest"]] = data
        for each in self.dossier["evaluations"]:
            about = {"dataset": each["dataset"], "version": each["dataset_version"]}
            datasets.setdefault(each["dataset_digest"], about)
        rows = DatasetVersion.objects.filter(digest__in=datasets).order_by("-pk")
        times = dict(rows.values_list("digest", "created_at"))
        packages = {
            digest: self._dataset(number, digest, about, times.get(digest))
            for number, (digest, about) in enumerate(datasets.items(), 1)
        }
        if data is not None:
            self._relate(model, "trainedOn", [packages[data["digest"]]])
        tested = dict.fromkeys(each["dataset_digest"] for each in self.dossier["evaluations"])
        self._relate(model, "testedOn", [packages[digest] for digest in tested])

    def _dataset(
        self, number: int, digest: str, about: Mapping[str, Any], created: datetime | None
    ) -> Any:
        task = TASKS.get(self.dossier["identity"]["task"])
        modality = task.modality if task else ""
        kind = modality if modality in _DATASET_TYPES else "noAssertion"
        created = _moment(created or self.release.created_at)
        package = self._add(
            "dataset_DatasetPackage",
            f"data-{number}",
            name=about["dataset"],
            software_packageVersion=str(about["version"]),
            software_primaryPurpose=self.spdx.software_SoftwarePurpose.data,
            software_downloadLocation=_location(digest),
            builtTime=created,
            releaseTime=created,
            originatedBy=[self.maker],
            verifiedUsing=[self._hash(digest)],
            dataset_datasetType=[getattr(self.spdx.dataset_DatasetType, kind)],
        )
        if level := _CONFIDENTIALITY.get(about.get("classification", "")):
            package.dataset_confidentialityLevel = getattr(
                self.spdx.dataset_ConfidentialityLevelType, level
            )
        self._license(package, about.get("license", ""))
        return package

    def _measured(self) -> Iterable[tuple[str, Any]]:
        for each in self.dossier["evaluations"]:
            for name, value in each["metrics"].items():
                yield f"{name}, {_place(each)}", value

    def _thresholds(self) -> Iterable[tuple[str, Any]]:
        for each in self.dossier["evaluations"]:
            for gate in each["gates"]:
                name = f"{gate['metric']}, {_place(each)}"
                yield name, f"{gate['comparator']} {worded(gate['threshold'])}"

    def _training(self) -> str:
        training = self.dossier["training"]
        sentences = [f"Started by {training['started_by']}."]
        if (data := self.dossier["data"]) is not None:
            sentences.insert(0, f"On {data['rows']} rows of {data['dataset']} v{data['version']}.")
        return " ".join(sentences)

    def _license(self, package: Any, text: str) -> None:
        """Add the declared license; nothing is concluded here."""
        declared: Any = _NO_ASSERTION
        if text:
            declared = self.licenses.get(text)
            if declared is None:
                code = f"license-{len(self.licenses) + 1}"
                declared = (
                    self._add(
                        "simplelicensing_LicenseExpression",
                        code,
                        simplelicensing_licenseExpression=text,
                    )
                    if license_id(text)
                    else self._add(
                        "simplelicensing_SimpleLicensingText",
                        code,
                        simplelicensing_licenseText=text,
                    )
                )
                self.licenses[text] = declared
        self._relate(package, "hasDeclaredLicense", [declared])
        self._relate(package, "hasConcludedLicense", [_NO_ASSERTION])

    def _relate(self, one: Any, how: str, others: list[Any]) -> None:
        if others:
            self._add(
                "Relationship",
                f"relationship-{len(self.elements)}",
                from_=one,
                relationshipType=getattr(self.spdx.RelationshipType, how),
                to=others,
            )

    def _add(self, kind: str, code: str, **members: Any) -> Any:
        element = getattr(self.spdx, kind)(
            spdxId=f"{self.name}#{code}", creationInfo=self.info, **members
        )
        self.elements.append(element)
        return element

    def _entries(self, pairs: Iterable[tuple[str, Any]]) -> list[Any]:
        return [
            self.spdx.DictionaryEntry(key=str(name), value=worded(value)) for name, value in pairs
        ]

    def _hash(self, digest: str, comment: str | None = None) -> Any:
        value = self.spdx.Hash(algorithm=self.spdx.HashAlgorithm.sha256, hashValue=digest)
        if comment:
            value.comment = comment
        return value

    def _presence(self, holds: bool) -> Any:
        return self.spdx.PresenceType.yes if holds else self.spdx.PresenceType.no


def _place(evaluation: Mapping[str, Any]) -> str:
    return f"{evaluation['dataset']} v{evaluation['dataset_version']}"


def _location(digest: str) -> str:
    """Return a URI of the digest (RFC 6920), since the store has no public address."""
    coded = base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")
    return f"ni:///sha-256;{coded}"


def _moment(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(microsecond=0)
