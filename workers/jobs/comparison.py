"""Compare several runs: their settings, curves and measurements, as far as the actor may see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet, Window
from django.db.models.functions import JSONObject, RowNumber

from governance.errors import InvalidInput, NotFound
from governance.principals import Principal
from registry.datasets.models import DatasetVersion
from registry.datasets.selectors import dataset_versions_visible_to
from registry.evaluations.models import Evaluation
from registry.evaluations.selectors import evaluations_visible_to
from registry.releases.comparison.fields import FIELDS_SHOWN, flat
from registry.releases.comparison.measures import numbers
from registry.releases.comparison.several import Column, SideRow, column_of, side_by_side
from registry.versions.models import ModelVersion, VersionKind
from registry.versions.selectors import versions_visible_to
from workers.jobs.models import Job, JobEvent, JobKind
from workers.jobs.selectors import jobs_visible_to

RUNS_MIN, RUNS_MAX = 2, 8
# Names of the runs, in their order.
LETTERS = "ABCDEFGH"
# Kinds of jobs with settings, curves or measurements to compare.
COMPARABLE = (JobKind.FINE_TUNE, JobKind.EVALUATE, JobKind.PROMPT)
# Points of one run's curves in training, and as many in validation.
POINTS_MAX = 500
DATASETS_MAX = 20
_HIDDEN = "not visible to you"


@dataclass(slots=True)
class Run:
    """A job with the version that it made or measured, or a version with the job that made it.

    Either is None if it does not exist or is not visible. `evaluation` is the result of a job that
    measured; `letter` names the run in tables and charts; `curves` are values by metric and step.
    """

    letter: str
    job: Job | None
    version: ModelVersion | None
    evaluation: Evaluation | None = None
    curves: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def measures(self) -> bool:
        """True for a job that measured a version, rather than making one."""
        return self.job is not None and self.job.kind == JobKind.EVALUATE

    @property
    def made(self) -> ModelVersion | None:
        return None if self.measures else self.version

    @property
    def title(self) -> str:
        return str(self.made or self.job)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of each run; None where it has none."""

    name: str
    values: list[Any]

    @property
    def differs(self) -> bool:
        return any(value != self.values[0] for value in self.values)


@dataclass(frozen=True, slots=True)
class Measurements:
    """Metrics on one dataset version, and the evaluation of each run, if any."""

    dataset_version: DatasetVersion
    evaluations: list[Evaluation | None]
    rows: list[SideRow]


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Runs in the requested order. `training` compares the metrics that their training recorded."""

    runs: list[Run]
    settings: list[Setting]
    measured: list[Measurements]
    training: list[SideRow]


def runs_compare(
    *, actor: Principal, job_ids: Sequence[UUID] = (), version_ids: Sequence[int] = ()
) -> RunComparison:
    """Compare jobs and versions; a job and the version that it made are one run.

    Takes a fixed number of queries.

    Raises:
        InvalidInput: fewer than `RUNS_MIN` or more than `RUNS_MAX` different runs.
        NotFound: one of them does not exist, or the actor may not see it.
    """
    _check_count(len(set(job_ids)) + len(set(version_ids)))
    runs = _runs(actor, list(dict.fromkeys(job_ids)), list(dict.fromkeys(version_ids)))
    _check_count(len(runs))
    _add_curves(runs)
    task = next((run.made.model.task for run in runs if run.made is not None), "")
    trained = [None if run.made is None else Column(numbers(run.made.metrics)) for run in runs]
    return RunComparison(
        runs=runs,
        settings=_settings(actor, runs),
        measured=_measurements(actor, runs)[:DATASETS_MAX],
        training=side_by_side(task, trained),
    )


def _check_count(count: int) -> None:
    if not RUNS_MIN <= count <= RUNS_MAX:
        raise InvalidInput(
            f"Select {RUNS_MIN} to {RUNS_MAX} runs or versions to compare; you selected {count}.",
            hint="Select runs in the list of jobs, or versions on the page of their model.",
        )


def _runs(actor: Principal, job_ids: list[UUID], version_ids: list[int]) -> list[Run]:
    versions = {
        each.pk: each
        for each in versions_visible_to(actor)
        .filter(Q(pk__in=version_ids) | Q(job_id__in=job_ids))
        .defer("manifest", "card", "code")
    }
    made = {each.job_id: each for each in versions.values() if each.job_id is not None}
    jobs = {
        each.pk: each
        for each in jobs_visible_to(actor).filter(pk__in=[*job_ids, *made]).defer("result")
    }
    results = {
        each.job_id: each
        for each in _evaluations(evaluations_visible_to(actor).filter(job_id__in=job_ids))
    }
    runs = []
    for job_id in job_ids:
        if job_id not in jobs:
            raise NotFound(f"There is no job {job_id}.")
        result = results.get(job_id)
        version = made.get(job_id) if result is None else result.version
        runs.append(Run("", jobs[job_id], version, result))
    for pk in version_ids:
        if pk not in versions:
            raise NotFound(f"Version {pk} does not exist, or you may not see it.")
        version = versions[pk]
        if version.job_id not in job_ids:
            runs.append(Run("", jobs.get(version.job_id) if version.job_id else None, version))
    for letter, run in zip(LETTERS, runs, strict=False):
        run.letter = letter
    return runs


def _evaluations(rows: QuerySet[Evaluation]) -> list[Evaluation]:
    """Read evaluations with the two small entries of `details` that a comparison needs."""
    small = JSONObject(right=F("details__right"), rows_cut=F("details__rows_cut"))
    evaluations: list[Any] = list(
        rows.annotate(small=small)
        .defer("details", "slices", "version__manifest", "version__card", "version__code")
        .prefetch_related(None)
    )
    for each in evaluations:
        each.details = each.small
    return evaluations


def _measurements(actor: Principal, runs: list[Run]) -> list[Measurements]:
    """Compare the newest evaluations of the versions, and those that were selected themselves, on
    each dataset version; the one that measured most runs comes first."""
    version_ids = [run.made.pk for run in runs if run.made is not None]
    rows = evaluations_visible_to(actor).filter(version__in=version_ids)
    newest = _evaluations(
        rows.order_by("version_id", "dataset_version_id", "-pk").distinct(
            "version_id", "dataset_version_id"
        )
    )
    by_version: dict[int, list[Evaluation]] = {}
    for each in newest:
        by_version.setdefault(each.version_id, []).append(each)
    by_data: dict[int, list[Evaluation | None]] = {}
    for place, run in enumerate(runs):
        own = [run.evaluation] if run.evaluation is not None else []
        if run.made is not None:
            own = by_version.get(run.made.pk, [])
        for each in own:
            cells: list[Evaluation | None] = [None] * len(runs)
            by_data.setdefault(each.dataset_version_id, cells)[place] = each
    measured = []
    for evaluations in sorted(by_data.values(), key=lambda each: each.count(None)):
        first = next(each for each in evaluations if each is not None)
        columns = [None if each is None else column_of(each) for each in evaluations]
        table = side_by_side(first.version.model.task, columns)
        measured.append(Measurements(first.dataset_version, evaluations, table))
    return measured


def _settings(actor: Principal, runs: list[Run]) -> list[Setting]:
    """Return every setting, those that differ first."""
    versions = [run.made for run in runs if run.made is not None]
    data = _names(
        dataset_versions_visible_to(actor).filter(
            pk__in=[each.dataset_version_id for each in versions]
        )
    )
    bases = _names(
        versions_visible_to(actor)
        .filter(pk__in=[each.base_id for each in versions])
        .defer("manifest", "card", "code", "metrics", "parameters")
    )
    columns = [_settings_of(run, data, bases) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    settings = [Setting(name, [column.get(name) for column in columns]) for name in names]
    return sorted(settings, key=lambda each: not each.differs)[:FIELDS_SHOWN]


def _names(rows: Iterable[Any]) -> dict[int, str]:
    return {row.pk: str(row) for row in rows}


def _settings_of(run: Run, data: Mapping[int, str], bases: Mapping[int, str]) -> dict[str, Any]:
    spec, version = (run.job.spec if run.job is not None else {}), run.made
    settings: dict[str, Any] = {
        "model": spec.get("model_name"),
        "version": spec.get("version_name"),
        "base": spec.get("base_name"),
        "evaluation_data" if run.measures else "training_data": spec.get("dataset_name"),
        "rows": (spec.get("max_rows") or "all") if run.measures else None,
        "method": spec.get("method"),
        **flat(spec.get("hyperparameters") or {}),
        **flat({"resources": spec.get("resources") or {}}),
    }
    if version is not None:
        settings |= {"model": version.model.name, "kind": version.kind}
        settings |= {"license": version.license or "not recorded"}
        if version.base_id is not None:
            settings["base"] = bases.get(version.base_id, _HIDDEN)
        if version.dataset_version_id is not None:
            settings["training_data"] = data.get(version.dataset_version_id, _HIDDEN)
        # The parameters of a prompt version are the prompt itself.
        if version.kind != VersionKind.PROMPT:
            settings |= flat(version.parameters)
    return {name: value for name, value in settings.items() if value is not None}


def _add_curves(runs: list[Run]) -> None:
    """Read the points of the curves; of more than `POINTS_MAX`, evenly spaced ones.

    Validation is thinned on its own: it has few points, which would be lost among those of the
    training.
    """
    by_job = {run.job.pk: run for run in runs if run.job is not None}
    part = (F("job_id"), F("trains"))
    points = (
        JobEvent.objects.filter(job_id__in=by_job, step__isnull=False)
        .annotate(trains=Q(data__has_key="loss"))
        .annotate(
            place=Window(RowNumber(), partition_by=part, order_by="pk"),
            count=Window(Count("pk"), partition_by=part),
        )
        .annotate(rest=F("place") % ((F("count") + POINTS_MAX - 1) / POINTS_MAX))
        .filter(Q(rest=0) | Q(place=F("count")))
        .order_by("pk")
    )
    curves: list[tuple[Any, Any, Any]] = list(points.values_list("job_id", "step", "data"))
    for job_id, step, data in curves:
        for name, value in numbers(data).items():
            # A step that a resumed run repeats counts once, with its latest value.
            by_job[job_id].curves.setdefault(name, {})[step] = value
