"""Batches of requests: their progress, and their started lines."""

from __future__ import annotations

from django.db import models

# Maximum length of a task's path with the name of a deployment.
ENDPOINT_MAX = 570
# Maximum open batches of one department.
OPEN_MAX = 50
ERRORS_MAX = 100
CUSTOM_ID_MAX = 512


class BatchState(models.TextChoices):
    """States of a batch, by OpenAI's names.

    `validating` reads the whole input before any request runs. `finalizing` and `cancelling` write
    the files of the requests that ran; afterward the batch never changes.
    """

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress", "in progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling", "canceling"
    CANCELLED = "cancelled", "canceled"


class Batch(models.Model):
    """Requests of one file to one deployment.

    `sender` is the public ID of the key that created the batch, from `client_address`; each line's
    request uses that key, address and `classification`. `model` names the deployment after
    validation. `next_line` and `next_offset` are the position of the first line that has not
    started. `fence` numbers the claims, so that a runner that lost its lease cannot change the
    batch. `ending` is the state after finalizing, `errors` its reasons. `cost_micro` is the cost of
    the lines so far, `output_bytes` the approximate size of the files. `failures` counts the failed
    lines by code after the end.
    """

    id = models.CharField(primary_key=True, max_length=40)
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    sender = models.CharField(max_length=16)
    key_name = models.CharField(max_length=200)
    client_address = models.CharField(max_length=64, blank=True)
    classification = models.CharField(max_length=20)
    endpoint = models.CharField(max_length=ENDPOINT_MAX)
    model = models.CharField(max_length=200, blank=True, default="")
    metadata = models.JSONField(default=dict, blank=True)
    input_file = models.CharField(max_length=40)
    output_file = models.CharField(max_length=40, blank=True, default="")
    error_file = models.CharField(max_length=40, blank=True, default="")
    outputs_expire_s = models.PositiveIntegerField(null=True, blank=True)
    state = models.CharField(
        max_length=11, choices=BatchState.choices, default=BatchState.VALIDATING
    )
    ending = models.CharField(max_length=11, choices=BatchState.choices, blank=True, default="")
    errors = models.JSONField(default=list, blank=True)
    failures = models.JSONField(default=dict, blank=True)
    total = models.PositiveIntegerField(default=0)
    completed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    cost_micro = models.PositiveBigIntegerField(default=0)
    output_bytes = models.PositiveBigIntegerField(default=0, db_default=0)
    next_line = models.PositiveIntegerField(default=1)
    next_offset = models.PositiveBigIntegerField(default=0)
    fence = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    # Time at which it reached each state, in seconds since the epoch, by state.
    reached = models.JSONField(default=dict, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = (
            models.Index(fields=("department", "-created_at", "-id"), name="batches_of_department"),
            models.Index(fields=("state", "created_at"), name="batches_to_run"),
            models.Index(fields=("input_file",), name="batches_of_file"),
        )

    def __str__(self) -> str:
        return f"batch {self.pk}"

    @property
    def short_id(self) -> str:
        """Shortened ID, for lists and titles."""
        return str(self.pk)[:18]

    @property
    def done(self) -> int:
        """Number of lines with a result."""
        return self.completed + self.failed


class LineState(models.TextChoices):
    """State of a line: a `running` one may have reached a worker; a `waiting` one has not, or was
    given back; a `done` one has an answer or an error."""

    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"


class BatchLine(models.Model):
    """A started line of the input, deleted when the batch ends.

    `offset` and `size` are its position in the input, in bytes. `attempt` numbers its requests,
    each with a separate ID; `engine_failures` counts requests that the worker could not answer and
    that cost nothing. `body` is the answer in JSON; `error` is the code of a failure, or empty.
    """

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="lines")
    number = models.PositiveIntegerField()
    custom_id = models.CharField(max_length=CUSTOM_ID_MAX)
    offset = models.PositiveBigIntegerField()
    size = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField(default=1)
    engine_failures = models.PositiveIntegerField(default=0, db_default=0)
    state = models.CharField(max_length=7, choices=LineState.choices, default=LineState.RUNNING)
    request_id = models.CharField(max_length=80, blank=True, default="")
    status = models.PositiveSmallIntegerField(default=0)
    body = models.TextField(blank=True, default="")
    error = models.CharField(max_length=80, blank=True, default="")
    message = models.CharField(max_length=1000, blank=True, default="")

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("batch", "number"), name="a_line_has_one_result"),
        )
        indexes = (models.Index(fields=("batch", "state"), name="lines_of_batch"),)

    def __str__(self) -> str:
        return f"line {self.number} of {self.batch_id}"
