"""The request log: what each department logs, its keys, and the encrypted content of requests."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from governance.bounds import REQUEST_ID_MAX

DAYS_MAX = 365
DAILY_MIB_MAX = 1024 * 1024
TAG_BYTES = 16
LOG_TABLE = "governance_loggedrequest"


class LogMode(models.TextChoices):
    """`off`: the request log shows no requests. `metadata`: it shows the records of the ledger.
    `full`: it also keeps prompts and answers."""

    OFF = "off"
    METADATA = "metadata"
    FULL = "full"


class RequestLogPolicy(models.Model):
    """Logging of a department's requests. Without a row, the defaults apply.

    Content is kept for `days`, and at most `daily_mib` of it are logged in a day (UTC). With
    `second_factor`, reading content takes a fresh one. With `datasets`, content may become rows of
    datasets.
    """

    department = models.OneToOneField(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    mode = models.CharField(max_length=8, choices=LogMode.choices, default=LogMode.METADATA)
    days = models.PositiveSmallIntegerField(default=30)
    daily_mib = models.PositiveIntegerField(default=1024)
    second_factor = models.BooleanField(default=True)
    datasets = models.BooleanField(default=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                name="request_log_within_bounds",
                condition=Q(days__gte=1, days__lte=DAYS_MAX)
                & Q(daily_mib__gte=1, daily_mib__lte=DAILY_MIB_MAX),
            ),
        )

    def __str__(self) -> str:
        return f"request log of {self.department_id}"


class RequestLogKey(models.Model):
    """A key of a department, encrypted by version `wrapped_by` of `ASSAY_REQUEST_LOG_KEY`.

    The one with the highest number encrypts new content. An erased key has no `wrapped`: nothing
    that it encrypted can be read again.
    """

    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    number = models.PositiveIntegerField()
    wrapped = models.BinaryField(null=True)
    wrapped_by = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    erased_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("department", "number")
        constraints = (
            models.UniqueConstraint(
                fields=("department", "number"), name="request_log_keys_are_numbered"
            ),
            models.CheckConstraint(
                name="erased_request_log_keys_are_gone",
                condition=Q(wrapped__isnull=True, erased_at__isnull=False)
                | Q(wrapped__isnull=False, erased_at__isnull=True),
            ),
        )

    def __str__(self) -> str:
        return f"request log key {self.number} of {self.department_id}"


class LoggedRequest(models.Model):
    """Encrypted content of a request: its prompt, and the answer as far as it was sent.

    The table is partitioned by month of `occurred_at`, the time of the request's record in the
    ledger. `user_tag` is the pseudonym of the end user whom the caller named, empty without one.
    `person` sent the request in the playground. `size` is the length of the content in bytes before
    encryption; `cut` content was longer. A request can have several rows if a write was repeated;
    the newest one counts.
    """

    request_id = models.CharField(max_length=REQUEST_ID_MAX)
    occurred_at = models.DateTimeField()
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    key = models.ForeignKey(RequestLogKey, on_delete=models.PROTECT, related_name="+")
    user_tag = models.BinaryField(max_length=TAG_BYTES, default=b"")
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+"
    )
    content = models.BinaryField()
    size = models.PositiveIntegerField()
    cut = models.BooleanField()

    class Meta:
        ordering = ("-id",)
        indexes = (
            models.Index(fields=("request_id",), name="logged_by_request"),
            models.Index(fields=("department", "occurred_at"), name="logged_in_time"),
            models.Index(
                fields=("department", "user_tag", "occurred_at"),
                condition=~Q(user_tag=b""),
                name="logged_by_user",
            ),
            models.Index(
                fields=("person",), condition=Q(person__isnull=False), name="logged_by_person"
            ),
        )

    def __str__(self) -> str:
        return self.request_id


class RequestLogDay(models.Model):
    """Requests whose content a department logged in a day (UTC), and those whose content was
    dropped: beyond the day's bytes, or because a web process had no room."""

    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    day = models.DateField()
    requests = models.PositiveBigIntegerField(default=0)
    bytes = models.PositiveBigIntegerField(default=0)
    dropped = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ("-day",)
        constraints = (models.UniqueConstraint(fields=("department", "day"), name="one_log_day"),)

    def __str__(self) -> str:
        return f"request log of {self.department_id} on {self.day}"


class ForgottenUser(models.Model):
    """An end user whose content was deleted at `at`. For an hour, web processes drop content of
    earlier requests that they had not written yet."""

    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    user_tag = models.BinaryField(max_length=TAG_BYTES)
    at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("department", "user_tag"), name="forgotten_once"),
        )

    def __str__(self) -> str:
        return f"forgotten user of {self.department_id}"
