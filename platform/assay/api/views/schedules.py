"""Jobs that start at set times."""

from __future__ import annotations

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Identifier, Line, Slug, StrictSerializer, Truth
from assay.api.idempotency import idempotent
from assay.api.representations.workers import (
    JobDetailAnswer,
    ScheduleAnswer,
    ScheduleRunAnswer,
)
from assay.api.views.evaluations import FineTuneBody, StepBody
from governance.bounds import DEPARTMENT_MAX, NAME_MAX, TITLE_MAX
from governance.errors import InvalidInput
from workers.jobs.chains import LINKS_MAX
from workers.jobs.models import PRIORITIES
from workers.schedules.models import CRON_MAX, ZONE_MAX, ScheduleKind, ScheduleState
from workers.schedules.selectors import schedule_get, schedules_visible_to
from workers.schedules.services import (
    schedule_create,
    schedule_delete,
    schedule_pause,
    schedule_resume,
    schedule_run,
)

DATASET = "In place of `dataset_version`: the newest version of this dataset at each run."
MODEL = "In place of `{}`: the newest trusted version of this model at each run."


class ScheduleQuery(StrictSerializer):
    """Filters of the list."""

    state = Choice(choices=ScheduleState.choices, required=False)
    department = Line(max_length=DEPARTMENT_MAX, required=False)


class MeasuredBody(StepBody):
    """Data of an evaluation."""

    dataset_version = Identifier(required=False)
    dataset = Slug(max_length=NAME_MAX, required=False, help_text=DATASET)


class ScheduledEvaluationBody(MeasuredBody):
    """An evaluation of one version, or of a model's newest."""

    version = Identifier(required=False)
    model = Slug(max_length=NAME_MAX, required=False, help_text=MODEL.format("version"))
    priority = Choice(choices=PRIORITIES, required=False)


class ScheduledFineTuneBody(FineTuneBody):
    """A fine-tune, and what follows it."""

    base_version = Identifier(required=False)
    base_model = Slug(
        max_length=NAME_MAX,
        required=False,
        help_text=MODEL.format("base_version"),
    )
    dataset_version = Identifier(required=False)
    dataset = Slug(max_length=NAME_MAX, required=False, help_text=DATASET)
    then = serializers.ListField(child=MeasuredBody(), max_length=LINKS_MAX, required=False)


class ScheduleBody(StrictSerializer):
    """The times and the request: either `evaluation` or `fine_tune`."""

    name = Line(max_length=TITLE_MAX)
    cron = Line(max_length=CRON_MAX, help_text="Minute, hour, day, month, weekday: `0 2 * * *`.")
    time_zone = Line(max_length=ZONE_MAX, required=False, help_text="UTC if it is left out.")
    run_unchanged = Truth(
        required=False,
        help_text="Run even when the newest versions are those of the last job. Otherwise such a "
        "time is skipped.",
    )
    evaluation = ScheduledEvaluationBody(required=False)
    fine_tune = ScheduledFineTuneBody(required=False)


class SchedulesView(Endpoint):
    """Schedules, newest first."""

    ordering = ("-id",)

    @operation("Jobs", "List schedules", query=ScheduleQuery, answer=ScheduleAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(ScheduleQuery)
        rows = schedules_visible_to(self.actor)
        if "department" in given:
            rows = rows.filter(department__slug=given.pop("department"))
        return self.page(rows.filter(**given), ScheduleAnswer)

    @operation(
        "Jobs",
        "Repeat an evaluation or a fine-tune at set times",
        body=ScheduleBody,
        answer=ScheduleAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.body(ScheduleBody)
        asked = [
            (kind, given[name])
            for kind, name in (
                (ScheduleKind.EVALUATE, "evaluation"),
                (ScheduleKind.FINE_TUNE, "fine_tune"),
            )
            if name in given
        ]
        if len(asked) != 1:
            sentence = "Give either evaluation or fine_tune."
            raise InvalidInput(sentence, fields={"evaluation": [sentence]})
        kind, wanted = asked[0]
        schedule = schedule_create(
            actor=self.actor,
            name=given["name"],
            kind=kind,
            request=wanted,
            cron=given["cron"],
            time_zone=given.get("time_zone", "UTC"),
            run_unchanged=given.get("run_unchanged", False),
        )
        return self.answer(schedule, ScheduleAnswer, status=201)


class ScheduleView(Endpoint):
    """One schedule."""

    @operation("Jobs", "One schedule and its next times", answer=ScheduleAnswer)
    def get(self, request: Request, schedule_id: int) -> Response:
        self.query()
        return self.answer(schedule_get(actor=self.actor, id=schedule_id), ScheduleAnswer)

    @operation("Jobs", "Delete a schedule; its jobs stay", answer=None, status=204)
    def delete(self, request: Request, schedule_id: int) -> Response:
        self.nothing()
        schedule_delete(actor=self.actor, schedule_id=schedule_id)
        return Response(status=204)


class ScheduleRunsView(Endpoint):
    """The outcomes of a schedule's times."""

    ordering = ("-due_at", "-id")

    @operation("Jobs", "List the last runs of a schedule", answer=ScheduleRunAnswer, paged=True)
    def get(self, request: Request, schedule_id: int) -> Response:
        self.query()
        schedule = schedule_get(actor=self.actor, id=schedule_id)
        return self.page(schedule.runs.select_related("requested_by"), ScheduleRunAnswer)


class SchedulePauseView(Endpoint):
    """Start no jobs for now."""

    @operation("Jobs", "Pause a schedule", answer=ScheduleAnswer)
    def post(self, request: Request, schedule_id: int) -> Response:
        self.nothing()
        return self.answer(
            schedule_pause(actor=self.actor, schedule_id=schedule_id), ScheduleAnswer
        )


class ScheduleResumeView(Endpoint):
    """Start jobs again."""

    @operation("Jobs", "Resume a schedule, whose jobs then run as you", answer=ScheduleAnswer)
    def post(self, request: Request, schedule_id: int) -> Response:
        self.nothing()
        return self.answer(
            schedule_resume(actor=self.actor, schedule_id=schedule_id), ScheduleAnswer
        )


class ScheduleRunView(Endpoint):
    """The job of a schedule at another time."""

    @operation("Jobs", "Run a schedule now, as you", answer=JobDetailAnswer, status=201)
    @idempotent
    def post(self, request: Request, schedule_id: int) -> Response:
        self.nothing()
        job = schedule_run(actor=self.actor, schedule_id=schedule_id)
        return self.answer(job, JobDetailAnswer, status=201)
