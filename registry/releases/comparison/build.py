"""A release beside the live one, put together as far as the reader may see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from governance.principals import Principal
from registry.catalogue import TASKS
from registry.datasets.selectors import dataset_versions_visible_to
from registry.evaluations.models import Evaluation
from registry.evaluations.selectors import evaluations_visible_to
from registry.releases.comparison.card import CardChange, card_changes
from registry.releases.comparison.data import DataChange, data_change
from registry.releases.comparison.fields import Fields, field_changes, flat
from registry.releases.comparison.files import Files, file_changes
from registry.releases.comparison.measures import (
    GateCheck,
    MetricRow,
    SliceRow,
    gates_not_measured,
    metric_rows,
    slice_rows,
)
from registry.releases.comparison.samples import SamplePair, sample_pairs
from registry.releases.models import Release
from registry.versions.models import ModelVersion
from registry.versions.selectors import versions_visible_to

EVALUATIONS_READ = 200
NOTHING = CardChange(sections=[], same=0, left_out=0)
MEASURED_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation; `live` is the live version's on the same dataset version, if there is one.

    `against` says what the numbers stand beside: live, baseline, or nothing. `missing` says why the
    live version's are not there although something serves, and what mends it.
    """

    evaluation: Evaluation
    live: Evaluation | None
    against: str
    against_name: str
    metrics: list[MetricRow]
    gates_not_measured: list[GateCheck]
    slices: list[SliceRow]
    samples: list[SamplePair]
    missing: str

    @property
    def all_passed(self) -> bool | None:
        """Whether every gate passed; None when there were none."""
        gates = [*(gate for row in self.metrics for gate in row.gates), *self.gates_not_measured]
        return all(gate.passed for gate in gates) if gates else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that is another in `release` than in `live`; all is new where `live` is None."""

    release: Release
    live: Release | None
    measured: list[Measured]
    evaluations: list[Evaluation]
    data: DataChange
    settings: Fields
    code: Fields
    asked: Fields
    answers: Fields
    dossier: Fields
    card: CardChange
    files: Files


def release_compare(*, actor: Principal, release: Release, live: Release | None) -> Comparison:
    """`release` beside `live`, which serves under its name; both are the actor's to see.

    It takes as many queries, however much there is to compare.
    """
    version = release.version
    replaced = live.version if live is not None else None
    versions = [each for each in (version, replaced) if each is not None]
    every = list(
        evaluations_visible_to(actor)
        .filter(version__model_id__in={each.model_id for each in versions})
        .order_by("-pk")[:EVALUATIONS_READ]
    )
    data = _by_id(
        dataset_versions_visible_to(actor).filter(
            pk__in=[each.dataset_version_id for each in versions]
        )
    )
    bases = _by_id(
        versions_visible_to(actor)
        .filter(pk__in=[each.base_id for each in versions])
        .defer("manifest", "card", "metrics")
    )
    old = replaced.dataset_version_id if replaced is not None else None
    return Comparison(
        release=release,
        live=live,
        measured=measured(version, replaced, every)[:MEASURED_SHOWN],
        evaluations=[each for each in every if each.version.model_id == version.model_id],
        data=data_change(
            data.get(version.dataset_version_id or 0),
            data.get(old or 0),
            hidden=any(each.dataset_version_id not in {None, *data} for each in versions),
        ),
        settings=field_changes(
            _settings(version, bases), None if replaced is None else _settings(replaced, bases)
        ),
        code=field_changes(_code(version), None if replaced is None else _code(replaced)),
        asked=field_changes(_asked(release), None if live is None else _asked(live)),
        answers=field_changes(release.risk_answers, None if live is None else live.risk_answers),
        dossier=field_changes(
            flat(release.dossier_fields), None if live is None else flat(live.dossier_fields)
        ),
        card=card_changes(version.card, replaced.card) if replaced is not None else NOTHING,
        files=file_changes(version, replaced),
    )


def measured(
    version: ModelVersion, replaced: ModelVersion | None, every: Iterable[Evaluation]
) -> list[Measured]:
    """The newest evaluation of `version` on each dataset version, beside the newest of `replaced`
    on the same one; `every` come newest first."""
    every = list(every)
    theirs = {
        each.dataset_version_id: each
        for each in newest_per_dataset(e for e in every if replaced and e.version_id == replaced.pk)
    }
    return [
        beside(each, version.model.task, replaced, theirs.get(each.dataset_version_id))
        for each in newest_per_dataset(e for e in every if e.version_id == version.pk)
    ]


def beside(
    evaluation: Evaluation,
    task: str,
    replaced: ModelVersion | None = None,
    live: Evaluation | None = None,
) -> Measured:
    """One evaluation beside the live version's, else beside its own baseline."""
    missing = ""
    if live is not None:
        old, intervals = live.metrics, live.intervals.get("metrics", {})
        against, name = "live", f"v{live.version.number} (live)"
    else:
        old, intervals = evaluation.baseline, evaluation.intervals.get("baseline", {})
        against = "baseline" if old else "nothing"
        name = evaluation.baseline_name.replace("_", " ") or "baseline"
        if replaced is not None:
            missing = (
                f"{replaced}, which serves now, was not evaluated on {evaluation.dataset_version}. "
                f"Evaluate it on that, and the two stand side by side."
            )
    return Measured(
        evaluation=evaluation,
        live=live,
        against=against,
        against_name=name,
        metrics=metric_rows(evaluation, task, old, intervals, live),
        gates_not_measured=gates_not_measured(evaluation),
        slices=slice_rows(evaluation, task, live),
        samples=sample_pairs(evaluation, live),
        missing=missing,
    )


def newest_per_dataset(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """The newest evaluation on each dataset version; `evaluations` come newest first."""
    found: dict[int, Evaluation] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation.dataset_version_id, evaluation)
    return list(found.values())


def _by_id(rows: Iterable[Any]) -> dict[int, Any]:
    return {row.pk: row for row in rows}


def _settings(version: ModelVersion, bases: Mapping[int, ModelVersion]) -> dict[str, Any]:
    """What it was made of and how it was trained."""
    base = bases.get(version.base_id or 0)
    hidden = "not yours to see" if version.base_id else "is a base itself"
    return {
        "task": version.model.task,
        "kind": version.kind,
        "base": f"{base} ({base.digest[:12]})" if base is not None else hidden,
        "licence": version.licence or "not recorded",
        **{name: value for name, value in version.parameters.items() if not _is_code(name)},
    }


def _code(version: ModelVersion) -> dict[str, Any]:
    """What ran when it was trained, as far as it was kept, and what runs it."""
    entry = TASKS.get(version.model.task)
    recorded = {name: value for name, value in version.parameters.items() if _is_code(name)}
    return {"engine": entry.engine if entry else "", **recorded}


def _is_code(name: str) -> bool:
    return name == "trainer" or name.startswith("library_")


def _asked(release: Release) -> dict[str, Any]:
    """What was asked for, under which rules."""
    policy = release.dossier.get("review_policy") or {}
    return {
        "purpose": release.purpose,
        "departments": sorted(each.slug for each in release.departments.all()),
        "visibility": release.visibility,
        "environment": release.environment,
        "tier": release.tier,
        "review_policy": " v".join(str(policy[n]) for n in ("name", "version") if n in policy),
        "access_policy": release.dossier.get("policy_version"),
    }
