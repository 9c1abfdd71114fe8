"""Jobs and deployments."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import Link, PersonReference, slug
from assay.api.representations.conditions import ValidityAnswer
from assay.api.representations.registry import VersionReference
from workers.jobs.line import job_waits


class JobAnswer(serializers.Serializer[Any]):
    """A job. `version` and `evaluation` are the IDs of objects that a finished job created."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    state = serializers.CharField()
    department = slug()
    title = serializers.CharField()
    spec = serializers.JSONField()
    progress = serializers.JSONField()
    error = serializers.CharField()
    priority = serializers.CharField(source="priority_name", help_text="low, normal or high")
    attempt = serializers.IntegerField()
    worker = serializers.CharField()
    cancel_requested = serializers.BooleanField()
    stop_request = serializers.CharField(
        help_text="pause or preempt while its run writes a checkpoint before stopping; else empty"
    )
    stop_reason = serializers.CharField(
        help_text="The reason for stopping it, until its next attempt begins."
    )
    version = serializers.SerializerMethodField()
    evaluation = serializers.SerializerMethodField()
    warnings = serializers.SerializerMethodField(
        help_text="Problems of the request, such as test data that was used for training."
    )
    created_by = PersonReference()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    paused_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    url = Link("jobs/{0.id}")
    events_url = Link("jobs/{0.id}/events")

    def get_warnings(self, job: Any) -> list[str]:
        return list(job.spec.get("warnings", []))

    def get_version(self, job: Any) -> int | None:
        return _result_id(job, "version")

    def get_evaluation(self, job: Any) -> int | None:
        return _result_id(job, "evaluation")


class ChainLinkAnswer(serializers.Serializer[Any]):
    """An evaluation that follows a fine-tune. `job` is set once it has started, and `state` is then
    the state of that job; `reason` explains why a stopped one will not start."""

    position = serializers.IntegerField()
    dataset_version = serializers.IntegerField(source="dataset_version_id")
    max_rows = serializers.IntegerField(allow_null=True)
    state = serializers.SerializerMethodField(
        help_text="waiting, stopped, or the state of the job that has started."
    )
    reason = serializers.CharField()
    job = serializers.UUIDField(source="job_id", allow_null=True)

    def get_state(self, link: Any) -> str:
        return str(link.state if link.job is None else link.job.state)


class ChainDraftAnswer(serializers.Serializer[Any]):
    """The release draft at the end of a chain. `draft` is set once it is created, and null again
    after the draft was submitted or deleted."""

    state = serializers.CharField(help_text="waiting, made or stopped")
    reason = serializers.CharField()
    content = serializers.JSONField()
    draft = serializers.IntegerField(source="draft_id", allow_null=True)


class JobDetailAnswer(JobAnswer):
    """One job with the reason why it waits and its follow-up steps."""

    waits = serializers.SerializerMethodField(help_text="Empty unless the job is queued.")
    then = ChainLinkAnswer(source="steps", many=True)
    release = ChainDraftAnswer(source="chain_draft", allow_null=True)

    def get_waits(self, job: Any) -> str:
        return job_waits(job)


def _result_id(job: Any, name: str) -> int | None:
    result = job.result if isinstance(job.result, dict) else {}
    pk = result.get(name)
    return pk if isinstance(pk, int) else None


class JobEventAnswer(serializers.Serializer[Any]):
    """One line of a job's log, or one point of its curves."""

    id = serializers.IntegerField()
    attempt = serializers.IntegerField()
    at = serializers.DateTimeField()
    step = serializers.IntegerField(allow_null=True)
    message = serializers.CharField()
    data = serializers.JSONField()  # type: ignore[assignment]  # DRF takes it out of the class


class JobEventsAnswer(serializers.Serializer[Any]):
    """A job's events in order; to continue, set `after` to `last`."""

    results = JobEventAnswer(many=True)
    last = serializers.IntegerField(help_text="The ID of the last event here, or `after`.")
    state = serializers.CharField(help_text="The job's state when this was read.")


class AttemptLogAnswer(serializers.Serializer[Any]):
    """The last lines that the run of a failed attempt printed, and its traceback."""

    attempt = serializers.IntegerField()
    at = serializers.DateTimeField()
    lines = serializers.CharField()


class ScheduleAnswer(serializers.Serializer[Any]):
    """A recurring job. `reason` explains why the platform suspended it."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    department = slug()
    kind = serializers.CharField(help_text="evaluate or fine_tune")
    title = serializers.CharField()
    request = serializers.JSONField()
    cron = serializers.CharField()
    time_zone = serializers.CharField()
    run_unchanged = serializers.BooleanField(
        help_text="Run even if the newest versions are those of the last job."
    )
    state = serializers.CharField(help_text="active, paused or suspended")
    reason = serializers.CharField()
    next_due = serializers.ListField(
        child=serializers.DateTimeField(), help_text="The next three times, in UTC."
    )
    last_job = serializers.UUIDField(source="last_job_id", allow_null=True)
    owner = PersonReference(help_text="The person who requests its jobs.")
    created_at = serializers.DateTimeField()
    url = Link("schedules/{0.id}")
    runs_url = Link("schedules/{0.id}/runs")


class ScheduleRunAnswer(serializers.Serializer[Any]):
    """The outcome of one due time. `version` is the one that was evaluated, or the base of a
    fine-tune; `data` is the dataset version."""

    id = serializers.IntegerField()
    due_at = serializers.DateTimeField()
    at = serializers.DateTimeField()
    outcome = serializers.CharField(help_text="started, skipped or refused")
    reason = serializers.CharField()
    version = serializers.CharField()
    data = serializers.CharField()  # type: ignore[assignment]  # DRF takes it out of the class
    job = serializers.UUIDField(source="job_id", allow_null=True)
    requested_by = PersonReference(
        allow_null=True, help_text="The person who started it outside of the schedule."
    )


class ReplicaAnswer(serializers.Serializer[Any]):
    """One worker's replica; `loaded_digest` was computed while it loaded. A `failed` replica is
    retried at `retry_at`."""

    worker = serializers.CharField()
    state = serializers.CharField()
    loaded_digest = serializers.CharField()
    message = serializers.CharField()
    load_seconds = serializers.FloatField(allow_null=True)
    failures = serializers.IntegerField(help_text="Loads that failed in a row.")
    retry_at = serializers.DateTimeField(allow_null=True)
    started_at = serializers.DateTimeField()
    heartbeat_at = serializers.DateTimeField()


class PlacementAnswer(serializers.Serializer[Any]):
    """One worker that the deployment is assigned to, and the reason for its choice."""

    worker = serializers.CharField()
    since = serializers.DateTimeField()
    reason = serializers.CharField()


class DeploymentAnswer(serializers.Serializer[Any]):
    """A deployment: an approved release under the name that applications use."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    department = slug()
    state = serializers.CharField()
    message = serializers.CharField()
    release = serializers.IntegerField(source="release_id")
    version = VersionReference(source="release.version")
    task = serializers.CharField(source="release.version.model.task")
    approval = ValidityAnswer(source="release")
    replicas = ReplicaAnswer(many=True)
    target_of = serializers.IntegerField(
        source="target_of_id",
        allow_null=True,
        help_text="The primary of this name, if it is a target of it.",
    )
    role = serializers.CharField(
        help_text="serve, canary, fallback or shadow; empty for a primary."
    )
    weight = serializers.IntegerField(
        help_text="Percent of the requests that meet the conditions; of a shadow, that are copied."
    )
    targets_revision = serializers.IntegerField(
        help_text="Number of changes of its targets; a change names the one that it is based on."
    )
    replicas_min = serializers.IntegerField()
    replicas_max = serializers.IntegerField()
    replicas_wanted = serializers.IntegerField(help_text="Target by load, between min and max.")
    queue_age_s = serializers.IntegerField(
        help_text="Seconds that a request may wait before replicas are added."
    )
    cold_start_s = serializers.FloatField(
        allow_null=True, help_text="Longest measured load of its replicas; null before the first."
    )
    labels = serializers.ListField(child=serializers.CharField(), source="required_labels")
    device = serializers.CharField(source="required_device")
    stream_total_s = serializers.IntegerField(
        allow_null=True, help_text="Longest streamed answer; null: the installation's limit."
    )
    stream_idle_s = serializers.IntegerField(
        allow_null=True, help_text="Longest pause between two tokens; null: the same."
    )
    queue_weights = serializers.DictField(
        child=serializers.IntegerField(),
        help_text="Weights of departments whose requests wait; 1 for others.",
    )
    placements = PlacementAnswer(many=True)
    created_by = PersonReference()
    created_at = serializers.DateTimeField()
    stopped_at = serializers.DateTimeField(allow_null=True)
    url = Link("deployments/{0.id}")


class TargetFiguresAnswer(serializers.Serializer[Any]):
    """Requests of the last 24 hours that the release answered or failed."""

    requests = serializers.IntegerField()
    failed = serializers.IntegerField()
    error_rate = serializers.FloatField()
    units = serializers.IntegerField()
    cost_micro = serializers.IntegerField()
    mean_ms = serializers.IntegerField(allow_null=True)


class TargetAnswer(serializers.Serializer[Any]):
    """The primary of a deployment, or one of its targets."""

    deployment = serializers.IntegerField(source="deployment.pk")
    release = serializers.IntegerField(source="deployment.release_id")
    version = VersionReference(source="deployment.release.version")
    state = serializers.CharField(source="deployment.state")
    role = serializers.CharField(help_text="primary, serve, canary, fallback or shadow.")
    weight = serializers.IntegerField(source="deployment.weight")
    share = serializers.IntegerField(
        allow_null=True,
        help_text="Percent of all requests that it gets; null for fallbacks and with conditions.",
    )
    conditions = serializers.JSONField(source="deployment.routing_conditions")
    figures = TargetFiguresAnswer()
    verdict = serializers.JSONField(
        source="deployment.canary_verdict",
        help_text="Last comparison of a canary with the primary, with its tests; empty without.",
    )
    shadow = serializers.ListField(
        child=serializers.JSONField(),
        help_text="Comparisons of a shadow with each release whose requests it answered.",
    )


class RollbackChoiceAnswer(serializers.Serializer[Any]):
    """A release that served under the name before. `obstacle` is the reason why it may not serve
    again; it is empty if it may."""

    release = serializers.IntegerField(source="release.pk")
    version = VersionReference(source="release.version")
    state = serializers.CharField(source="release.state")
    approved_at = serializers.DateTimeField(source="release.approved_at", allow_null=True)
    expires_at = serializers.DateTimeField(source="release.expires_at", allow_null=True)
    served_from = serializers.DateTimeField()
    obstacle = serializers.CharField()
