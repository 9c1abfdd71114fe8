"""Comparison of several jobs and versions: `?job=…&version=…`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from assay.portal.http import Screen
from assay.portal.series import overlaid
from governance.errors import NotFound
from registry.versions.models import ModelVersion
from workers.jobs.comparison import RUNS_MIN, Run, runs_compare


@dataclass(frozen=True, slots=True)
class Side:
    """One column. `without` is the address of the comparison without this run; empty if too few
    runs would remain."""

    run: Run
    label: str
    without: str


class RunComparisonPage(Screen):
    """Settings, curves and measurements of up to 8 runs or versions."""

    template_name = "portal/jobs/compare.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        job_ids = [_uuid(text) for text in self.request.GET.getlist("job")]
        version_ids = [_number(text) for text in self.request.GET.getlist("version")]
        comparison = runs_compare(actor=self.actor, job_ids=job_ids, version_ids=version_ids)
        sides = _sides(comparison.runs, set(job_ids))
        versions = [run.made for run in comparison.runs if run.made is not None]
        return {
            "sides": sides,
            "differing": [each for each in comparison.settings if each.differs],
            "same": [each for each in comparison.settings if not each.differs],
            "measured": comparison.measured,
            "training": comparison.training,
            "charts": overlaid([(each.run.letter, each.label, each.run.curves) for each in sides]),
            "pair": _pair(comparison.runs, versions),
            "models": sorted({version.model.name for version in versions}),
        }


def _sides(runs: list[Run], job_ids: set[UUID]) -> list[Side]:
    keys = [_key(run, job_ids) for run in runs]
    return [
        Side(
            run,
            f"{run.letter} · {run.title[:60]}",
            f"?{urlencode([each for each in keys if each != key])}" if len(runs) > RUNS_MIN else "",
        )
        for run, key in zip(runs, keys, strict=True)
    ]


def _key(run: Run, job_ids: set[UUID]) -> tuple[str, Any]:
    if run.job is not None and run.job.pk in job_ids:
        return "job", run.job.pk
    return "version", run.version.pk if run.version is not None else ""


def _pair(
    runs: list[Run], versions: list[ModelVersion]
) -> tuple[ModelVersion, ModelVersion] | None:
    """Return the newer and the older of two versions of one model; None for other comparisons.

    Such a pair has a page that compares files, data and cards.
    """
    if len(runs) != 2 or len(versions) != 2 or versions[0].model_id != versions[1].model_id:
        return None
    new, old = sorted(versions, key=lambda version: -version.number)
    return new, old


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound(f"There is no job {text[:60]!r}.") from error


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise NotFound(f"There is no version {text[:20]!r}.")
    return int(text)
