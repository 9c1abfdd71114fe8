"""The model of a release as a bill of materials: CycloneDX 1.6, with its model card.

The library has no classes for model cards, so the JSON is written here and validated against the
library's own copy of the schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from governance.errors import DomainError
from registry.catalog import TASKS
from registry.manifests import Manifest
from registry.releases.evidence_archive import readable_json
from registry.releases.models import Release
from registry.storage import store

CONFIG = "config.json"
MAX_CONFIG_BYTES = 1024 * 1024
# The schema requires unique list items; checking that takes quadratic time.
CHECKED_ITEMS = 100
_AUTONOMY = {
    "suggests": "It suggests; a person acts.",
    "decides_with_human": "It takes part in decisions; a person confirms them.",
    "decides": "It decides without a person.",
}


def mlbom(release: Release) -> bytes:
    """Return the bill of materials of the dossier, as JSON.

    Raises:
        RuntimeError: it does not match the schema of CycloneDX 1.6.
    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    dossier = release.dossier
    datasets = _datasets(dossier)
    model = _model(release, datasets)
    bases = [_base(base) for base in dossier["identity"]["bases"]]
    services = list(_services(dossier))
    if bases:
        model["pedigree"] = {"ancestors": bases}
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, release.dossier_digest)}",
        "version": 1,
        "metadata": {
            "timestamp": release.created_at.isoformat(),
            "tools": {"components": [{"type": "application", "name": "Assay"}]},
            "component": model,
            "properties": _properties(
                release=release.pk,
                dossier=release.dossier_digest,
                environment=release.environment,
                deployment=release.deployment_name,
                tier=dossier["risk"]["tier"],
            ),
        },
        "components": list(datasets.values()),
        "dependencies": [
            {
                "ref": model["bom-ref"],
                "dependsOn": sorted([*datasets, *(each["bom-ref"] for each in services)]),
            }
        ],
        **({"services": services} if services else {}),
    }
    # Items of a list have the same form, and paths of files are unique: the first represent all.
    sample = json.dumps(_beginning(document))
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sample)
    if error is not None:
        raise RuntimeError(
            f"The bill of materials of {release} is not valid CycloneDX: {error.data.message:.300}"
        )
    return readable_json(document)


def _beginning(value: Any) -> Any:
    """Return `value` with every list cut to the length that is checked."""
    if isinstance(value, dict):
        return {name: _beginning(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_beginning(each) for each in value[:CHECKED_ITEMS]]
    return value


def _model(release: Release, datasets: Mapping[str, Any]) -> dict[str, Any]:
    identity = release.dossier["identity"]
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{identity['digest']}",
        "name": identity["model"],
        "version": str(identity["version"]),
        "description": release.dossier["purpose"],
        "hashes": _sha256(identity["digest"]),
        **_licenses(identity["license"]),
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{file['path']}",
                "name": file["path"],
                "hashes": _sha256(file["sha256"]),
                "properties": _properties(size_bytes=file["size"]),
            }
            for file in identity["files"]
        ],
        "modelCard": _card(release, datasets),
        "properties": _properties(
            kind=identity["kind"],
            mlflow_run_id=identity["mlflow"]["run_id"],
            **{f"parameter:{k}": v for k, v in release.dossier["training"]["parameters"].items()},
        ),
    }


def _services(dossier: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the provider of a hosted model, which receives what applications send."""
    if "hosted" not in dossier:
        return
    hosted, unpinned = dossier["hosted"]["description"], dossier["hosted"]["not_pinned"]
    terms = hosted["terms"]
    yield {
        "bom-ref": f"service:{hosted['base_url']}",
        "provider": {"name": hosted["provider"]},
        "name": hosted["model"],
        "description": f"An external service that runs the model. {unpinned}",
        "endpoints": [hosted["base_url"]],
        "authenticated": bool(hosted["credential"]),
        "x-trust-boundary": True,
        "data": [
            {
                "flow": "bi-directional",
                "classification": dossier["risk"]["answers"]["data_classification"],
            }
        ],
        "properties": _properties(
            region=hosted["region"], terms=terms["title"], terms_sha256=terms["sha256"]
        ),
    }


def _card(release: Release, datasets: Mapping[str, Any]) -> dict[str, Any]:
    dossier = release.dossier
    identity, answers = dossier["identity"], dossier["risk"]["answers"]
    parameters: dict[str, Any] = {
        "task": identity["task"],
        "datasets": [{"ref": ref} for ref in datasets],
        **architecture(release),
    }
    if dossier["data"] is not None:
        parameters["approach"] = {"type": "supervised"}
    task = TASKS.get(identity["task"])
    metrics = [
        _metric(
            name, value, _slice(each), (each.get("intervals") or {}).get("metrics", {}).get(name)
        )
        for each in dossier["evaluations"]
        for name, value in sorted(each["metrics"].items())
    ]
    metrics += [
        _metric(
            part["metric"],
            part["value"],
            f"{part['by']}: {part['name']}, {part['n']} rows of {each['dataset']} "
            f"v{each['dataset_version']}",
            part,
        )
        for each in dossier["evaluations"]
        for part in each.get("slices") or ()
    ]
    gates = {
        f"gate:{gate['metric']} {gate['comparator']} {gate['threshold']}": (
            f"{'passed' if gate['passed'] else 'failed'} with {gate['value']}, {_slice(each)}"
        )
        for each in dossier["evaluations"]
        for gate in each["gates"]
    }
    considerations: dict[str, Any] = {
        "users": dossier["release"]["departments"],
        "useCases": list(dict.fromkeys([dossier["purpose"], answers["intended_purpose"]])),
        "ethicalConsiderations": [
            {"name": "Autonomy", "mitigationStrategy": _AUTONOMY[answers["autonomy"]]},
            {
                "name": "Personal data",
                "mitigationStrategy": "It handles personal data."
                if answers["personal_data"]
                else "It handles none.",
            },
            *(
                {
                    "name": f"{risk['hazard']} ({risk['likelihood']}, {risk['severity']})",
                    "mitigationStrategy": f"{risk['mitigation']} The residual risk "
                    f"is {risk['residual']}, accepted by {risk['accepter_role']}.",
                }
                for risk in dossier.get("risks") or ()
            ),
        ],
        "fairnessAssessments": [{"groupAtRisk": answers["affected_people"]}],
    }
    if answers.get("notes"):
        considerations["technicalLimitations"] = [answers["notes"]]
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": considerations,
        "properties": _properties(
            task=task.title if task else identity["task"],
            eu_ai_act_role=answers["eu_ai_act_role"],
            **gates,
        ),
    }


def architecture(release: Release) -> dict[str, str]:
    """Return family and class of the network, from the configuration among the version's files.

    An adapter has those of its base. Files that are missing or altered are skipped.
    """
    identity = release.dossier["identity"]
    versions = [release.version]
    while (base := versions[-1].base) is not None:
        versions.append(base)
    for version in versions:
        try:
            manifest = Manifest.from_json(version.manifest)
            config = json.loads(store.version_file(manifest, CONFIG, most=MAX_CONFIG_BYTES))
        except (DomainError, ValueError, RecursionError):
            continue
        if not isinstance(config, dict):
            continue
        values = {"architectureFamily": config.get("model_type")}
        classes = config.get("architectures")
        values["modelArchitecture"] = classes[0] if isinstance(classes, list) and classes else None
        texts = {name: text for name, text in values.items() if isinstance(text, str) and text}
        if texts:
            return texts
    return {"architectureFamily": f"{identity['kind']} for {identity['task']}"}


def _datasets(dossier: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return training and test data as components, by reference."""
    components: dict[str, dict[str, Any]] = {}
    if (data := dossier["data"]) is not None:
        components[f"data:{data['digest']}"] = _dataset(
            data["dataset"], data["version"], data["digest"], "training", data["rows"]
        )
        component = components[f"data:{data['digest']}"]
        component.update(_licenses(data["license"]))
        component["data"][0]["classification"] = data["classification"]
    for each in dossier["evaluations"]:
        ref = f"data:{each['dataset_digest']}"
        if ref not in components:
            components[ref] = _dataset(
                each["dataset"],
                each["dataset_version"],
                each["dataset_digest"],
                "test",
                each["rows"],
            )
    return components


def _dataset(name: str, number: int, digest: str, role: str, rows: int) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": f"data:{digest}",
        "name": name,
        "version": str(number),
        "hashes": _sha256(digest),
        "data": [{"type": "dataset", "name": f"{name} v{number}"}],
        "properties": _properties(role=role, rows=rows),
    }


def _base(base: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{base['digest']}",
        "name": base["model"],
        "version": str(base["version"]),
        "hashes": _sha256(base["digest"]),
        **_licenses(base["license"]),
        "properties": _properties(kind=base["kind"]),
    }


def _metric(
    name: str, value: Any, place: str, interval: Mapping[str, Any] | None
) -> dict[str, Any]:
    metric: dict[str, Any] = {"type": name, "value": str(value), "slice": place}
    if interval and interval.get("low") is not None:
        metric["confidenceInterval"] = {
            "lowerBound": str(interval["low"]),
            "upperBound": str(interval["high"]),
        }
    return metric


def _slice(evaluation: Mapping[str, Any]) -> str:
    return (
        f"{evaluation['dataset']} v{evaluation['dataset_version']}, "
        f"{evaluation['sample_size']} rows"
        f"{', training data' if evaluation.get('on_training_data') else ''}"
    )


def _sha256(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def license_id(text: str) -> bool:
    """Return true if `text` is a license of the SPDX list."""
    from cyclonedx.spdx import is_supported_id

    return is_supported_id(text)


def _licenses(text: str) -> dict[str, Any]:
    if not text:
        return {}
    return {"licenses": [{"license": {"id" if license_id(text) else "name": text}}]}


def _properties(**values: Any) -> list[dict[str, str]]:
    return [
        {"name": f"assay:{name}", "value": value if isinstance(value, str) else json.dumps(value)}
        for name, value in values.items()
        if value not in (None, "")
    ]
