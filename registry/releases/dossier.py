"""The dossier: everything that a reviewer decides on, frozen and digested."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Prefetch

from governance.people.models import Department
from governance.rowsecurity import lifted
from registry.canonical import canonical_json
from registry.datasets.leaks import Overlap, overlap
from registry.datasets.models import DatasetVersion
from registry.evaluations.models import Evaluation, GateResult
from registry.incidents.models import Incident
from registry.intake.models import IntakeProbe
from registry.releases.engines import serving_section
from registry.releases.equivalence.environments import environments_of
from registry.releases.equivalence.standing import equivalence_section
from registry.releases.exports.hosted import FINDINGS_MAX, hosted_section
from registry.releases.exports.shadow import shadow_section
from registry.releases.live import release_live
from registry.releases.software import assay_version, code_section
from registry.versions.hosted import hosted_of, hosted_settings
from registry.versions.models import ModelVersion
from registry.versions.prompts import prompt_of
from registry.versions.selectors import base_chain, training_data
from registry.versions.weights import weights_version

# Raise it when a section changes in meaning: frozen dossiers stay unchanged.
FORMAT = 1


@lifted()
def dossier_build(
    version: ModelVersion,
    *,
    department: Department,
    environment: str,
    deployment_name: str,
    departments: Sequence[Department],
    visibility: str,
    purpose: str,
    risk_answers: Mapping[str, Any],
    tier: str,
    policy_version: int,
    submitted_by: int,
    fields: Mapping[str, Any],
    review_policy: Mapping[str, Any],
    engine: str,
    precision: str,
    after_upgrade: str,
) -> dict[str, Any]:
    """Build the dossier of a release of `version`, as JSON that PostgreSQL returns unchanged.

    Evidence includes what the submitter may not see. People appear by number, so that erasing one
    does not change the dossier. `fields` are the checked sections that people filled in;
    `review_policy` names the policy version of the review.

    Raises:
        ManifestMismatch: the text of a prompt version, or the description of a hosted one, does not
            have its digest.
    """
    prompt_of(version)  # The dossier has it as `training.parameters`.
    replaces = _replaces(environment, deployment_name)
    return as_stored(
        {
            "format": FORMAT,
            "identity": _identity(version),
            "release": {
                "department": department.slug,
                "environment": environment,
                "deployment_name": deployment_name,
                "departments": sorted(each.slug for each in departments),
                "visibility": visibility,
                "submitted_by": f"person {submitted_by}",
            },
            "serving": serving_section(version, engine, precision),
            **_hosted(version),
            "software": _software(version, engine, precision, after_upgrade),
            "purpose": purpose,
            "risk": {"tier": tier, "answers": dict(risk_answers)},
            "review_policy": dict(review_policy),
            **dossier_evidence(version),
            **_shadow(version),
            "training": {
                "parameters": version.parameters,
                "metrics": version.metrics,
                "started_by": f"person {version.created_by_id}",
                "job": str(version.job_id) if version.job_id else None,
            },
            "code": _code(version),
            "replaces": replaces,
            "risks": fields.get("risks", []),
            "oversight": fields.get("oversight"),
            "logging": _logging(),
            "operation": {**fields.get("operation", {}), "rollback": _rollback(replaces)},
            "conformity": fields.get("conformity"),
            "policy_version": policy_version,
        }
    )


@lifted()
def dossier_evidence(version: ModelVersion, *, leaks: bool = True) -> dict[str, Any]:
    """Return training data, evaluations and card as a dossier holds them.

    Without `leaks`, the training data is not searched for test rows.

    Raises:
        Unavailable: the store lacks the rows of a dataset that is searched for leaks.
    """
    trained_on = training_data(version) if leaks else []
    return {
        "data": _data(version.dataset_version),
        "evaluations": [_evaluation(each, trained_on) for each in version_evaluations(version)],
        "card": version.card,
    }


def version_evaluations(version: ModelVersion) -> list[Evaluation]:
    """Return every evaluation of `version`, oldest first, with its gate results."""
    results = GateResult.objects.select_related("gate")
    return list(
        version.evaluations.select_related("dataset_version__dataset", "created_by")
        .prefetch_related(Prefetch("gate_results", queryset=results))
        .order_by("pk")
    )


def as_stored(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` as a JSON column returns it: PostgreSQL rewrites some numbers.

    The digest is over this form, so that it can be computed again from the stored row.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::jsonb::text", [canonical_json(value).decode()])
        stored: dict[str, Any] = json.loads(cursor.fetchone()[0])
    return stored


def _identity(version: ModelVersion) -> dict[str, Any]:
    intake = getattr(version, "intake", None)
    return {
        "model": version.model.name,
        "task": version.model.task,
        "version": version.number,
        "kind": version.kind,
        "digest": version.digest,
        "size_bytes": version.size_bytes,
        "files": version.manifest["files"],
        "license": version.license,
        "bases": [
            {
                "model": base.model.name,
                "version": base.number,
                "kind": base.kind,
                "digest": base.digest,
                "license": base.license,
            }
            for base in base_chain(version)
        ],
        "intake": intake and {"id": intake.pk, "source": intake.source},
        "mlflow": {"run_id": version.mlflow_run_id, "version": version.mlflow_version},
    }


def _hosted(version: ModelVersion) -> dict[str, Any]:
    """Return the section on a provider's model, with the call at its intake; none for others."""
    description = hosted_of(version)
    if description is None:
        return {}
    probe = IntakeProbe.objects.filter(intake__version=weights_version(version)).first()
    result = None if probe is None else probe.result
    findings = Incident.objects.filter(about__in={version.pk, weights_version(version).pk})
    return {
        "hosted": hosted_section(
            hosted_settings(description),
            result,
            [
                {
                    "incident": each.pk,
                    "cause": each.cause,
                    "happened": each.happened,
                    "severity": each.severity,
                    "state": each.state,
                    "opened_at": each.opened_at.isoformat(),
                }
                for each in findings.order_by("-pk")[:FINDINGS_MAX]
            ],
        )
    }


def _shadow(version: ModelVersion) -> dict[str, Any]:
    """Return the section on the version's answers as a shadow; none if it was no shadow."""
    section = shadow_section(version)
    return {"shadow": section} if section else {}


def _software(
    version: ModelVersion, engine: str, precision: str, after_upgrade: str
) -> dict[str, Any]:
    code = code_section(version.model.task)
    return {
        "assay": assay_version(),
        "code": code,
        "serves_with": environments_of(engine),
        "equivalence": equivalence_section(
            version.model.task,
            version_evaluations(version),
            engine=engine,
            precision=precision,
            code=code["digest"],
            policy=after_upgrade,
        ),
    }


def _code(version: ModelVersion) -> list[dict[str, Any]]:
    """Return chat templates and tokenizer patterns of the version and its bases."""
    return [
        {"model": each.model.name, "version": each.number, **code}
        for each in (version, *base_chain(version))
        for code in each.code
    ]


def _data(data: DatasetVersion | None) -> dict[str, Any] | None:
    if data is None:
        return None
    return {
        "dataset": data.dataset.name,
        "version": data.number,
        "digest": data.digest,
        "rows": data.rows,
        "license": data.dataset.license,
        "classification": data.dataset.classification,
        "profile": data.profile,
        "uploaded_by": f"person {data.created_by_id}",
    }


def _baselines(evaluation: Evaluation) -> dict[str, Any]:
    baselines = evaluation.details.get("baselines")
    members = ("name", "metrics", "trained_on")
    if not baselines:
        return {}
    return {"baselines": [{name: each[name] for name in members} for each in baselines]}


def _evaluation(evaluation: Evaluation, trained_on: Sequence[DatasetVersion]) -> dict[str, Any]:
    tested_on = evaluation.dataset_version
    leak = overlap(trained_on, tested_on) if trained_on else Overlap(0)
    return {
        "id": evaluation.pk,
        "digest": evaluation.digest,
        "dataset": tested_on.dataset.name,
        "dataset_version": tested_on.number,
        "dataset_digest": tested_on.digest,
        "rows": tested_on.rows,
        "sample_size": evaluation.sample_size,
        "metrics": evaluation.metrics,
        "baseline": evaluation.baseline,
        "baseline_name": evaluation.baseline_name,
        **_baselines(evaluation),
        # Workers record these.
        **{
            name: str(evaluation.details[name])
            for name in ("engine", "precision", "code")
            if evaluation.details.get(name)
        },
        **{
            name: evaluation.details[name]
            for name in ("environment", "reference", "provider", "drift")
            if evaluation.details.get(name)
        },
        "intervals": evaluation.intervals,
        "slices": evaluation.slices,
        "started_at": evaluation.started_at.isoformat(),
        "started_by": f"person {evaluation.created_by_id}",
        "rows_in_training_data": leak.same,
        **({"on_training_data": True} if evaluation.on_training_data else {}),
        **({"rows_cut": evaluation.rows_cut} if evaluation.rows_cut else {}),
        **({"rows_alike_in_training_data": leak.alike} if tested_on.profile.get("media") else {}),
        "gates": [
            {
                "metric": result.gate.metric,
                "comparator": result.gate.comparator,
                "threshold": result.threshold,
                "value": result.value,
                "passed": result.passed,
                "why": result.gate.why,
            }
            for result in evaluation.gate_results.all()
        ],
    }


def _replaces(environment: str, deployment_name: str) -> dict[str, Any] | None:
    """Return the release that may serve under this name now, with its version's results."""
    live = release_live(environment, deployment_name)
    if live is None:
        return None
    return {
        "release": live.pk,
        "model": live.version.model.name,
        "version": live.version.number,
        "digest": live.version.digest,
        "dossier_digest": live.dossier_digest,
        "evaluations": [
            {
                "dataset_digest": each.dataset_version.digest,
                "metrics": each.metrics,
                "digest": each.digest,
                **({"on_training_data": True} if each.on_training_data else {}),
            }
            for each in version_evaluations(live.version)
        ],
    }


def _rollback(replaces: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the release to fall back to: the one that may serve at the time of freezing."""
    if replaces is None:
        return None
    return {name: replaces[name] for name in ("release", "model", "version", "digest")}


def _logging() -> dict[str, Any]:
    return {
        "log": settings.AUDIT_LOG_NAME,
        "events": "Every change, every refusal, and the decision on every request, with its time, "
        "who asked, the policy and the release; no prompts and no answers.",
        "retention": "No event is deleted.",
    }
