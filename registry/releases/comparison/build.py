"""Compare a release with the live one, or two versions, as far as the reader may see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from governance.database.narrow import narrowed
from governance.errors import InvalidInput
from governance.principals import Principal
from registry.catalog import TASKS
from registry.catalog.engines import engine_class
from registry.datasets.selectors import dataset_versions_visible_to
from registry.evaluations.models import Evaluation
from registry.evaluations.selectors import evaluations_to_compare
from registry.releases.comparison.card import CardChange, card_changes, section_changes
from registry.releases.comparison.data import DataChange, data_change
from registry.releases.comparison.fields import Fields, field_changes, flat
from registry.releases.comparison.files import Files, file_changes
from registry.releases.comparison.measures import (
    BaselineRow,
    GateCheck,
    MetricRow,
    SliceRow,
    baseline_rows,
    gates_not_measured,
    metric_rows,
    slice_rows,
)
from registry.releases.comparison.packages import Packages, packages_compared
from registry.releases.comparison.samples import SamplePair, sample_pairs
from registry.releases.exports.prompts import prompt_sections
from registry.releases.models import Release
from registry.versions.models import ModelVersion, VersionKind
from registry.versions.selectors import versions_visible_to
from registry.versions.weights import measuring_engine

EVALUATIONS_READ = 200
NOTHING = CardChange(sections=[], same=0, left_out=0)
MEASURED_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation; `live` is the other version's on the same dataset version, if there is one.

    `against` states what the numbers are compared with: live, version (one that need not serve),
    baseline, or nothing. `missing` states why the other version's are missing, and how to fix it.
    `baselines` are the simple models on the same rows.
    """

    evaluation: Evaluation
    live: Evaluation | None
    against: str
    against_name: str
    metrics: list[MetricRow]
    gates_not_measured: list[GateCheck]
    slices: list[SliceRow]
    baselines: list[BaselineRow]
    samples: list[SamplePair]
    missing: str

    @property
    def all_passed(self) -> bool | None:
        """True when every gate passed; None without gates."""
        gates = [*(gate for row in self.metrics for gate in row.gates), *self.gates_not_measured]
        return all(gate.passed for gate in gates) if gates else None


@dataclass(frozen=True, slots=True)
class VersionComparison:
    """Differences between a version and another; everything is new if there is no other."""

    measured: list[Measured]
    data: DataChange
    settings: Fields
    code: Fields
    card: CardChange
    prompt: CardChange
    files: Files


@dataclass(frozen=True, slots=True)
class Comparison(VersionComparison):
    """Differences between `release` and `live`; everything is new if `live` is None."""

    release: Release
    live: Release | None
    evaluations: list[Evaluation]
    request: Fields
    answers: Fields
    dossier: Fields
    packages: Packages


def release_compare(*, actor: Principal, release: Release, live: Release | None) -> Comparison:
    """Compare `release` with `live`, which serves under its name; the actor may see both.

    Takes a fixed number of queries.
    """
    version = release.version
    replaced = live.version if live is not None else None
    models = {each.model_id for each in (version, replaced) if each is not None}
    evaluations = list(
        evaluations_to_compare(actor)
        .filter(version__model_id__in=models)
        .order_by("-pk")[:EVALUATIONS_READ]
    )
    engines = release.engine, live.engine if live is not None else ""
    parts = _compared(actor, version, replaced, evaluations, engines=engines, serves=True)
    return Comparison(
        **{each.name: getattr(parts, each.name) for each in fields(parts)},
        release=release,
        live=live,
        evaluations=[each for each in evaluations if each.version.model_id == version.model_id],
        request=field_changes(_request(release), None if live is None else _request(live)),
        answers=field_changes(release.risk_answers, None if live is None else live.risk_answers),
        dossier=field_changes(
            flat(release.dossier_fields), None if live is None else flat(live.dossier_fields)
        ),
        packages=packages_compared(release.dossier, _dossier_before(release, live)),
    )


def _dossier_before(release: Release, live: Release | None) -> Mapping[str, Any] | None:
    """Return the dossier to compare packages with: the live one, else that of a renewed release."""
    before = live or release.renews
    return None if before is None else before.dossier


def version_compare(
    *, actor: Principal, version: ModelVersion, other: ModelVersion
) -> VersionComparison:
    """Compare `version` with `other`; the actor may see both. Takes a fixed number of queries.

    Raises:
        InvalidInput: they are the same version, or for different tasks.
    """
    if version.pk == other.pk:
        raise InvalidInput(
            f"{version} cannot be compared with itself.",
            hint="Choose two versions.",
            fields={"against": ["Another version."]},
        )
    if version.model.task != other.model.task:
        raise InvalidInput(
            f"{version} does {version.model.task} and {other} does {other.model.task}; "
            "they cannot be compared.",
            fields={"against": [f"A version for {version.model.task}."]},
        )
    evaluations = list(
        evaluations_to_compare(actor)
        .filter(version__in=[version, other])
        .order_by("-pk")[:EVALUATIONS_READ]
    )
    engines = measuring_engine(version), measuring_engine(other)
    return _compared(actor, version, other, evaluations, engines=engines, serves=False)


def _compared(
    actor: Principal,
    version: ModelVersion,
    replaced: ModelVersion | None,
    evaluations: Iterable[Evaluation],
    *,
    engines: tuple[str, str],
    serves: bool,
) -> VersionComparison:
    versions = [each for each in (version, replaced) if each is not None]
    data = _by_id(
        dataset_versions_visible_to(actor).filter(
            pk__in=[each.dataset_version_id for each in versions]
        )
    )
    base_ids = [each.base_id for each in versions if each.base_id is not None]
    bases = _by_id(
        narrowed(
            versions_visible_to(actor).filter(pk__in=base_ids), "number", "digest", "model__name"
        )
    )
    old = replaced.dataset_version_id if replaced is not None else None
    return VersionComparison(
        measured=measured(version, replaced, evaluations, serves=serves)[:MEASURED_SHOWN],
        data=data_change(
            data.get(version.dataset_version_id or 0),
            data.get(old or 0),
            hidden=any(each.dataset_version_id not in {None, *data} for each in versions),
        ),
        settings=field_changes(
            _settings(version, bases), None if replaced is None else _settings(replaced, bases)
        ),
        code=field_changes(
            _code(version, engines[0]),
            None if replaced is None else _code(replaced, engines[1]),
        ),
        card=card_changes(version.card, replaced.card) if replaced is not None else NOTHING,
        prompt=_prompt(version, replaced),
        files=file_changes(version, replaced),
    )


def measured(
    version: ModelVersion,
    replaced: ModelVersion | None,
    every: Iterable[Evaluation],
    *,
    serves: bool = True,
) -> list[Measured]:
    """Compare the newest evaluation of `version` on each dataset version with the newest of
    `replaced` on the same one; `every` come newest first. `serves`: `replaced` is live now."""
    every = list(every)
    theirs = {
        each.dataset_version_id: each
        for each in newest_per_dataset(e for e in every if replaced and e.version_id == replaced.pk)
    }
    return [
        evaluation_compare(
            each, version.model.task, replaced, theirs.get(each.dataset_version_id), serves=serves
        )
        for each in newest_per_dataset(e for e in every if e.version_id == version.pk)
    ]


def evaluation_compare(
    evaluation: Evaluation,
    task: str,
    replaced: ModelVersion | None = None,
    live: Evaluation | None = None,
    *,
    serves: bool = True,
) -> Measured:
    """Compare one evaluation with the other version's, else with its own baseline."""
    missing = ""
    if live is not None:
        old, intervals = live.metrics, live.intervals.get("metrics", {})
        against, name = "version", _short_name(live.version, evaluation.version)
        if serves:
            against, name = "live", f"v{live.version.number} (live)"
    else:
        old, intervals = evaluation.baseline, evaluation.intervals.get("baseline", {})
        against = "baseline" if old else "nothing"
        name = evaluation.baseline_name.replace("_", " ") or "baseline"
        if replaced is not None:
            missing = (
                f"{replaced}{', which serves now,' if serves else ''} was not evaluated on "
                f"{evaluation.dataset_version}. "
                "Evaluate it on that data to compare the two."
            )
    return Measured(
        evaluation=evaluation,
        live=live,
        against=against,
        against_name=name,
        metrics=metric_rows(evaluation, task, old, intervals, live),
        gates_not_measured=gates_not_measured(evaluation),
        slices=slice_rows(evaluation, task, live),
        baselines=baseline_rows(evaluation, task),
        samples=sample_pairs(evaluation, live),
        missing=missing,
    )


def _short_name(version: ModelVersion, other: ModelVersion) -> str:
    same = version.model_id == other.model_id
    return f"v{version.number}" if same else str(version)


def newest_per_dataset(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Return the newest evaluation on each dataset version; `evaluations` come newest first."""
    newest: dict[int, Evaluation] = {}
    for evaluation in evaluations:
        newest.setdefault(evaluation.dataset_version_id, evaluation)
    return list(newest.values())


def _by_id(rows: Iterable[Any]) -> dict[int, Any]:
    return {row.pk: row for row in rows}


def _prompt(version: ModelVersion, replaced: ModelVersion | None) -> CardChange:
    """Compare the two prompts; a version of another kind has none."""
    after, before = (
        prompt_sections(each.parameters)
        if each is not None and each.kind == VersionKind.PROMPT
        else {}
        for each in (version, replaced)
    )
    return section_changes(after, before)


def _settings(version: ModelVersion, bases: Mapping[int, ModelVersion]) -> dict[str, Any]:
    """Return base, license and settings to compare."""
    base = bases.get(version.base_id or 0)
    hidden = "not visible to you" if version.base_id else "is a base itself"
    return {
        "task": version.model.task,
        "kind": version.kind,
        "base": f"{base} ({base.digest[:12]})" if base is not None else hidden,
        "license": version.license or "not recorded",
        **{name: value for name, value in _parameters(version).items() if not _is_code(name)},
    }


def _parameters(version: ModelVersion) -> dict[str, Any]:
    """Return hyperparameters, or the description of a hosted version; those of a prompt version are
    the prompt itself."""
    if version.kind == VersionKind.PROMPT:
        return {}
    return flat(version.parameters) if version.kind == VersionKind.HOSTED else version.parameters


def _code(version: ModelVersion, engine: str) -> dict[str, Any]:
    """Return the code that trained it, as far as recorded, and the code that runs it."""
    entry = TASKS.get(version.model.task)
    recorded = {name: value for name, value in version.parameters.items() if _is_code(name)}
    return {"engine": engine_class(engine, entry) if entry else "", **recorded}


def _is_code(name: str) -> bool:
    return name in {"trainer", "package", "package_code"} or name.startswith("library_")


def _request(release: Release) -> dict[str, Any]:
    """Return the request, and the policies that it was made under, to compare."""
    policy = release.dossier.get("review_policy") or {}
    return {
        "purpose": release.purpose,
        "departments": sorted(each.slug for each in release.departments.all()),
        "visibility": release.visibility,
        "environment": release.environment,
        "engine": release.get_engine_display(),
        "precision": release.get_precision_display(),
        "quantization": (release.dossier.get("serving") or {}).get("quantization", ""),
        "tier": release.tier,
        "review_policy": " v".join(str(policy[n]) for n in ("name", "version") if n in policy),
        "access_policy": release.dossier.get("policy_version"),
    }
