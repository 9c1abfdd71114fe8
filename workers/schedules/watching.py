"""Canary evaluations: repeat the evaluation of a hosted version every day on a small dataset."""

from __future__ import annotations

from django.db import transaction

from governance.bounds import TITLE_MAX
from governance.database.locks import lock
from governance.errors import WrongState
from governance.principals import Principal
from governance.schemas import Id, Schema
from registry.catalog import TASKS
from registry.datasets.models import Classification, DatasetVersion
from registry.datasets.selectors import dataset_version_get, dataset_versions_visible_to
from registry.versions.hosted import can_be_evaluated, hosted_served
from registry.versions.models import ModelVersion, VersionState
from registry.versions.selectors import version_get
from workers.schedules.models import Schedule, ScheduleKind, ScheduleState
from workers.schedules.requests import NewSchedule, ScheduledEvaluation
from workers.schedules.selectors import schedules_visible_to
from workers.schedules.services import schedule_create, schedule_run

# Rows of one canary evaluation: enough for an interval, and cheap.
ROWS = 100
CHOICES = 50


class Watch(Schema):
    """Dataset version of the canary evaluation; if omitted, the smallest that may be sent to the
    provider."""

    dataset_version: Id | None = None


def watch_choices(actor: Principal, version: ModelVersion) -> list[DatasetVersion]:
    """Return dataset versions for a canary evaluation that the actor may see, the smallest first;
    none if the version is not a trusted hosted one that can be evaluated."""
    description = hosted_served(version)
    task = TASKS.get(version.model.task)
    if (
        description is None
        or task is None
        or version.state != VersionState.TRUSTED
        or not can_be_evaluated(version, task)
    ):
        return []
    cleared = Classification.values[: Classification.values.index(description.cleared_for) + 1]
    rows = dataset_versions_visible_to(actor).filter(
        dataset__task=task.name, dataset__row_kind="", dataset__classification__in=cleared
    )
    return list(rows.order_by("rows", "-pk")[:CHOICES])


def watching(actor: Principal, version: ModelVersion) -> Schedule | None:
    """Return an active schedule that evaluates the version, if the actor may see one."""
    rows = schedules_visible_to(actor).filter(
        kind=ScheduleKind.EVALUATE, state=ScheduleState.ACTIVE, request__version=version.pk
    )
    return rows.first()


@transaction.atomic
def version_watch(
    *, actor: Principal, version_id: int, dataset_version: int | None = None
) -> Schedule:
    """Evaluate a hosted version now and every day, as the actor, on at most `ROWS` rows.

    Raises:
        NotFound: the version or the data does not exist, or the actor may not see it.
        WrongState: it is watched already, or no data can be sent to its provider.
        DomainError: the evaluation is refused, as `evaluate_request`.
    """
    version = version_get(actor=actor, id=version_id)
    lock(f"version-watch:{version.pk}")
    if (present := watching(actor, version)) is not None:
        raise WrongState(
            f"The schedule {present.name!r} evaluates {version} already; no other was created.",
            code="already_watched",
            hint="Change or delete that schedule.",
        )
    if dataset_version is not None:
        data = dataset_version_get(actor=actor, id=dataset_version)
    else:
        choices = watch_choices(actor, version)
        if not choices:
            raise WrongState(
                f"{version} cannot be watched: it needs to be a trusted hosted version with a "
                "dataset of its task that may be sent to the provider.",
                hint="Create a small dataset that is classified no higher than the description's "
                "`cleared_for`.",
            )
        data = choices[0]
    schedule = schedule_create(
        actor=actor,
        schedule=NewSchedule(
            name=f"Watch {version}"[:TITLE_MAX],
            # At night, and not all versions at once.
            cron=f"{version.pk % 60} {version.pk // 60 % 6} * * *",
            evaluation=ScheduledEvaluation(
                version=version.pk,
                dataset_version=data.pk,
                max_rows=ROWS if data.rows > ROWS else None,
            ),
        ),
    )
    schedule_run(actor=actor, schedule_id=schedule.pk)
    return schedule
