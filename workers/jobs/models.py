"""Durable work of compute workers. The row is authoritative; a message only wakes a worker."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from workers.control.messages import LINES_MAX


class JobKind(models.TextChoices):
    """Kind of work of a job."""

    INTAKE = "intake"
    FINE_TUNE = "fine_tune", "fine-tune"
    EVALUATE = "evaluate"
    PROMPT = "prompt"
    INDEX = "index"


class JobState(models.TextChoices):
    """States of a job.

    `paused`: a person took it out of the line; it has no worker and keeps its checkpoints.
    `finishing`: the worker has delivered; the control plane is registering the result. `dead`:
    every attempt ended without a result.
    """

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHING = "finishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    DEAD = "dead"


class JobPriority(models.IntegerChoices):
    """Jobs of a higher priority are claimed first."""

    LOW = -1
    NORMAL = 0
    HIGH = 1

    @classmethod
    def named(cls, word: str) -> JobPriority:
        """Return the priority for `low`, `normal` or `high`. Raises KeyError."""
        return cls[word.upper()]

    @property
    def word(self) -> str:
        """Its name in requests and records: low, normal or high."""
        return self.name.lower()


class StopRequest(models.TextChoices):
    """Request to the worker of a running job to write a checkpoint and stop. `pause`: by a person,
    who pauses the job. `preempt`: by the controller, which queues the job again."""

    PAUSE = "pause"
    PREEMPT = "preempt"


PRIORITIES = tuple(priority.word for priority in JobPriority)


class Job(models.Model):
    """One piece of work, held by at most one worker at a time under a lease.

    A claim increments `fence` and `attempt` and sets `lease_until`; every later write names its
    fence, so a worker that lost its lease, or whose node was revoked, changes nothing.
    `spec` is the request, `result` the output, `progress` {step, total, phase} for display, and
    `checkpoints` maps folder names to manifests of checkpoints that a later attempt may resume.
    `stop_request` makes the worker write a checkpoint and stop, and `stop_reason` says why, until
    the next attempt begins. A preempted job makes way for the job `yields_to`. `interruptions`
    counts attempts that do not count as failed. A retry continues from the checkpoints of the
    failed job `continues`.

    `queued_at` is when the job last joined the line, `claimed_at` when its current attempt began.
    `dispatches` counts messages sent, or registrations tried, in the current state; the next one
    is due at `dispatch_after`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=20, choices=JobKind.choices)
    state = models.CharField(max_length=12, choices=JobState.choices, default=JobState.QUEUED)
    priority = models.SmallIntegerField(
        choices=JobPriority.choices, default=JobPriority.NORMAL, db_default=JobPriority.NORMAL
    )
    department = models.ForeignKey("governance.Department", on_delete=models.PROTECT)
    title = models.CharField(max_length=200)
    spec = models.JSONField()
    result = models.JSONField(null=True, blank=True)
    error = models.CharField(max_length=2000, blank=True)
    progress = models.JSONField(default=dict)
    checkpoints = models.JSONField(default=dict)
    fence = models.PositiveIntegerField(default=0)
    attempt = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    dispatches = models.PositiveIntegerField(default=0)
    dispatch_after = models.DateTimeField(default=timezone.now)
    cancel_requested = models.BooleanField(default=False)
    stop_request = models.CharField(
        max_length=10, choices=StopRequest.choices, blank=True, default="", db_default=""
    )
    stop_reason = models.CharField(max_length=500, blank=True, default="", db_default="")
    yields_to = models.UUIDField(null=True, blank=True)
    interruptions = models.PositiveIntegerField(default=0, db_default=0)
    continues = models.UUIDField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    queued_at = models.DateTimeField(null=True, blank=True, default=timezone.now)
    claimed_at = models.DateTimeField(null=True, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at", "-id")
        constraints = (
            models.CheckConstraint(
                name="running_job_has_a_lease",
                condition=~Q(state=JobState.RUNNING) | Q(lease_until__isnull=False),
            ),
        )
        indexes = (
            # The order of lists, so that a page reads its rows alone.
            models.Index(fields=("-created_at", "-id"), name="jobs_newest"),
            models.Index(fields=("state", "-created_at", "-id"), name="jobs_by_state"),
            models.Index(fields=("department", "-created_at", "-id"), name="jobs_by_department"),
            models.Index(
                fields=("state", "lease_until"),
                condition=Q(state__in=("queued", "running", "finishing")),
                name="jobs_in_flight",
            ),
            models.Index(fields=("finished_at",), name="jobs_by_end"),
            models.Index(fields=("paused_at",), condition=Q(state="paused"), name="jobs_paused"),
            # The order in which a department's jobs are claimed.
            models.Index(
                fields=("department", "-priority", "created_at", "id"),
                condition=Q(state="queued"),
                name="jobs_in_line",
            ),
        )

    def __str__(self) -> str:
        return self.title

    @property
    def priority_name(self) -> str:
        """The priority in lowercase."""
        return JobPriority(self.priority).word

    @property
    def tries(self) -> int:
        """Return how many attempts count against `ASSAY_JOB_MAX_ATTEMPTS`."""
        return self.attempt - self.interruptions

    @property
    def steps(self) -> models.QuerySet[ChainLink]:
        """Return the steps that follow, with their jobs."""
        return self.chain.select_related("job").order_by("position")


class JobLine(models.Model):
    """A table without rows, which every claim of a job locks (`workers.jobs.line`).

    Workers need no other lock, and on a separate table it holds up nothing else.
    """

    def __str__(self) -> str:
        return "line"


class JobEvent(models.Model):
    """One line of a job's log, or one point of its curves. `data` maps a metric to its value.

    The table is partitioned by month of `at` (UTC); old months are exported and dropped
    (`workers.retention`).
    """

    # The index in Meta begins with the job.
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events", db_index=False)
    attempt = models.PositiveIntegerField()
    at = models.DateTimeField(auto_now_add=True)
    step = models.PositiveIntegerField(null=True, blank=True)
    message = models.CharField(max_length=1000, blank=True)
    data = models.JSONField(default=dict)

    class Meta:
        ordering = ("id",)
        indexes = (models.Index(fields=("job", "id"), name="job_events_in_order"),)

    def __str__(self) -> str:
        return self.message or str(self.data)


class AttemptLog(models.Model):
    """Last lines that the run of a failed attempt printed, and its traceback.

    They may contain training data: only the job's department reads them (row security), and they
    are removed with the job's folder.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempt_logs")
    attempt = models.PositiveIntegerField()
    at = models.DateTimeField(auto_now_add=True)
    lines = models.TextField(max_length=LINES_MAX)

    class Meta:
        ordering = ("job", "attempt")
        constraints = (
            models.UniqueConstraint(fields=("job", "attempt"), name="one_log_per_attempt"),
        )

    def __str__(self) -> str:
        return f"attempt {self.attempt} of {self.job_id}"


class ChainState(models.TextChoices):
    """`waiting`: the previous job is not over. `stopped`: never starts; `reason` says why."""

    WAITING = "waiting"
    STARTED = "started"
    STOPPED = "stopped"


class ChainLink(models.Model):
    """An evaluation of the version that the fine-tune `first` makes.

    It starts as `job` when the job `after` has succeeded. `after` is unknown until the previous
    link has started.
    """

    first = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="chain")
    position = models.PositiveSmallIntegerField()
    dataset_version = models.ForeignKey(
        "registry.DatasetVersion", on_delete=models.PROTECT, related_name="+"
    )
    max_rows = models.PositiveIntegerField(null=True, blank=True)
    state = models.CharField(max_length=10, choices=ChainState.choices, default=ChainState.WAITING)
    reason = models.CharField(max_length=500, blank=True, default="")
    after = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="followed_by", null=True, blank=True
    )
    job = models.OneToOneField(
        Job, on_delete=models.CASCADE, related_name="link", null=True, blank=True
    )
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("first", "position")
        constraints = (
            models.UniqueConstraint(fields=("first", "position"), name="one_link_a_position"),
            models.CheckConstraint(
                name="started_link_has_a_job",
                condition=Q(state="started", job__isnull=False)
                | (~Q(state="started") & Q(job__isnull=True)),
            ),
        )
        indexes = (
            models.Index(fields=("after",), condition=Q(state="waiting"), name="links_waiting"),
        )

    def __str__(self) -> str:
        return f"{self.first_id}: {self.position}"


class ChainDraftState(models.TextChoices):
    """`waiting`: a previous job is not over. `stopped`: never created; `reason` says why."""

    WAITING = "waiting"
    MADE = "made"
    STOPPED = "stopped"


class ChainDraft(models.Model):
    """Release draft, at the end of a chain, of the version that the fine-tune `first` makes.

    It is created when the last job, `after`, has succeeded; `after` is unknown until that job has
    started. `content` is the draft's initial content. A draft is deleted when it is submitted or
    discarded, so `draft_id` may refer to no row.
    """

    first = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="chain_draft")
    content = models.JSONField(default=dict)
    state = models.CharField(
        max_length=10, choices=ChainDraftState.choices, default=ChainDraftState.WAITING
    )
    reason = models.CharField(max_length=500, blank=True, default="")
    after = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="followed_by_draft", null=True, blank=True
    )
    draft_id = models.BigIntegerField(null=True, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                name="made_chain_draft_has_a_draft",
                condition=Q(state="made", draft_id__isnull=False)
                | (~Q(state="made") & Q(draft_id__isnull=True)),
            ),
        )
        indexes = (
            models.Index(
                fields=("after",), condition=Q(state="waiting"), name="chain_drafts_waiting"
            ),
        )

    def __str__(self) -> str:
        return f"{self.first_id}: release draft"
