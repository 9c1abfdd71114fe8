"""Deployments of approved releases, and the worker processes that have loaded them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, JSONField, Q, Value

from governance.bounds import NAME_MAX
from registry.catalog.hosted import FINGERPRINT_MAX, STATED_MODEL_MAX

DEVICE_MAX = 12
REPLICAS_MAX = 100
# In seconds. The longest answer is also the longest for which a worker remembers a request, so that
# none is answered twice (`workers.sealing`).
STREAM_TOTAL_MAX, STREAM_IDLE_MAX = 3600, 300
# Longest wait of requests, in seconds, that adds no replica: the default and the maximum.
QUEUE_AGE_S, QUEUE_AGE_MAX_S = 5, 600
# Largest weight of a department in a queue, and the most departments with one.
QUEUE_WEIGHT_MAX, QUEUE_WEIGHTS_MAX = 100, 100
# Start of the message of a deployment that another one replaced.
REPLACED = "Replaced by release"


class Device(models.TextChoices):
    """Kind of device that an engine worker computes on."""

    CPU = "cpu", "CPU"
    CUDA = "cuda", "CUDA GPU"


class DeploymentState(models.TextChoices):
    """`refused`: the stored bytes differ from the manifest; `message` names the file."""

    PENDING = "pending"
    SERVING = "serving"
    REFUSED = "refused"
    STOPPED = "stopped"


class TargetRole(models.TextChoices):
    """Part of a deployment in routing. The primary answers what no other target is chosen for.

    `serve`: a share of the requests that meet its conditions. `canary`: the same, watched: the
    controller takes its share away once it is worse than the primary. `fallback`: requests that
    others failed to begin. `shadow`: copies of requests; its answers reach no client.
    """

    PRIMARY = "", "Primary"
    SERVE = "serve", "Share of requests"
    CANARY = "canary", "Canary"
    FALLBACK = "fallback", "Fallback"
    SHADOW = "shadow", "Shadow"


class Deployment(models.Model):
    """An approved release under the name that applications use. It serves as long as its lease
    lasts (`ServingLease`).

    Several may be live under one name: the primary, and its targets, whose `target_of` is the
    primary. Each has its own release, lease, queue and replicas.
    """

    name = models.SlugField(max_length=NAME_MAX)
    release = models.ForeignKey(
        "registry.Release", on_delete=models.PROTECT, related_name="deployments"
    )
    department = models.ForeignKey("governance.Department", on_delete=models.PROTECT)
    state = models.CharField(
        max_length=10, choices=DeploymentState.choices, default=DeploymentState.PENDING
    )
    message = models.CharField(max_length=1000, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    stopped_at = models.DateTimeField(null=True, blank=True)
    # Placement belongs to operations; reviews do not approve it.
    replicas_min = models.PositiveSmallIntegerField(default=1, db_default=1)
    replicas_max = models.PositiveSmallIntegerField(default=1, db_default=1)
    replicas_wanted = models.PositiveSmallIntegerField(
        default=1, db_default=1, help_text="Target between both, set by the controller."
    )
    queue_age_s = models.PositiveSmallIntegerField(
        default=QUEUE_AGE_S,
        db_default=QUEUE_AGE_S,
        help_text="Seconds that a request may wait before replicas are added.",
    )
    required_labels = models.JSONField(
        default=list,
        blank=True,
        db_default=Value([], JSONField()),
        help_text="Labels that its workers need.",
    )
    required_device = models.CharField(
        max_length=DEVICE_MAX, choices=Device.choices, blank=True, default="", db_default=""
    )
    # Limits of streamed answers in seconds; None: `ASSAY_GATEWAY_REQUEST_TIMEOUT_S`.
    stream_total_s = models.PositiveSmallIntegerField(null=True, blank=True)
    stream_idle_s = models.PositiveSmallIntegerField(null=True, blank=True)
    # Weights of departments whose requests wait, by slug; 1 for others.
    queue_weights = models.JSONField(default=dict, blank=True, db_default=Value({}, JSONField()))
    target_of = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="targets"
    )
    role = models.CharField(
        max_length=8, choices=TargetRole.choices, blank=True, default="", db_default=""
    )
    # Percent of the requests that meet the conditions; of a shadow, percent that are copied.
    weight = models.PositiveSmallIntegerField(default=0, db_default=0)
    # Order among the targets of a primary; fallbacks are tried in this order.
    position = models.PositiveSmallIntegerField(default=0, db_default=0)
    # `RoutingConditions` as JSON; empty for none.
    routing_conditions = models.JSONField(
        default=dict, blank=True, db_default=Value({}, JSONField())
    )
    # A canary is compared with the primary from this time on.
    routed_at = models.DateTimeField(null=True, blank=True)
    # Last comparison of a canary with the primary, as JSON.
    canary_verdict = models.JSONField(default=dict, blank=True, db_default=Value({}, JSONField()))
    # Number of changes of a primary's targets, so that two people never overwrite each other.
    targets_revision = models.PositiveIntegerField(default=0, db_default=0)

    class Meta:
        ordering = ("name", "-id")
        constraints = (
            models.CheckConstraint(
                name="replicas_within_bounds",
                condition=Q(
                    replicas_min__lte=F("replicas_max"),
                    replicas_max__gte=1,
                    replicas_max__lte=REPLICAS_MAX,
                    replicas_wanted__lte=F("replicas_max"),
                    replicas_wanted__gte=F("replicas_min"),
                ),
            ),
            models.CheckConstraint(
                name="stream_limits_within_bounds",
                condition=Q(stream_total_s__isnull=True)
                | Q(stream_total_s__gte=1, stream_total_s__lte=STREAM_TOTAL_MAX),
            ),
            models.CheckConstraint(
                name="stream_pauses_within_bounds",
                condition=Q(stream_idle_s__isnull=True)
                | Q(stream_idle_s__gte=1, stream_idle_s__lte=STREAM_IDLE_MAX),
            ),
            models.CheckConstraint(
                name="queue_age_within_bounds",
                condition=Q(queue_age_s__gte=1, queue_age_s__lte=QUEUE_AGE_MAX_S),
            ),
            models.UniqueConstraint(
                fields=("name",),
                condition=Q(state__in=("pending", "serving"), target_of__isnull=True),
                name="one_live_primary_per_name",
            ),
            models.UniqueConstraint(
                fields=("target_of", "release"),
                condition=Q(state__in=("pending", "serving"), target_of__isnull=False),
                name="one_live_target_per_release",
            ),
            models.CheckConstraint(
                name="a_target_has_a_role_and_a_share",
                condition=Q(target_of__isnull=True, role="", weight=0, position=0)
                | Q(target_of__isnull=False, role="fallback", weight=0)
                | Q(target_of__isnull=False, role__in=("serve", "canary"), weight__lte=100)
                | Q(target_of__isnull=False, role="shadow", weight__gte=1, weight__lte=100),
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def cold_start_s(self) -> float | None:
        """Longest measured load of its replicas in seconds; None before the first. A request to a
        deployment that is scaled to zero waits about so long."""
        measured = (each.load_seconds for each in self.replicas.all())
        return max((each for each in measured if each is not None), default=None)


class ServingLease(models.Model):
    """Time until which a deployment may serve. The controller extends it as long as the release may
    serve, so all serving ends if the controller is dead or stuck.

    It has its own table, because workers update deployments and so lock their rows.
    """

    deployment = models.OneToOneField(
        Deployment, on_delete=models.CASCADE, primary_key=True, related_name="lease"
    )
    servable_until = models.DateTimeField()

    def __str__(self) -> str:
        return f"lease of {self.deployment_id}"


class ReplicaState(models.TextChoices):
    """State of one worker's copy.

    `failed`: the worker lacks something, such as memory or its data volume, and tries again.
    `refused`: the bytes that it read differ from the manifest.
    """

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    REFUSED = "refused"
    STOPPED = "stopped"


class Replica(models.Model):
    """One worker process's copy of a deployment. `loaded_digest` is computed while loading.

    `failures` counts consecutive failed loads; the next one is tried at `retry_at`.
    """

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="replicas")
    # Every worker asks for its own replicas every few seconds.
    worker = models.CharField(max_length=120, db_index=True)
    state = models.CharField(max_length=10, choices=ReplicaState.choices)
    loaded_digest = models.CharField(max_length=64, blank=True)
    message = models.CharField(max_length=1000, blank=True)
    load_seconds = models.FloatField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0, db_default=0)
    retry_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(auto_now_add=True)
    heartbeat_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(fields=("deployment", "worker"), name="one_replica_per_worker"),
        )

    def __str__(self) -> str:
        return f"{self.deployment_id}@{self.worker}"


class WorkerKey(models.Model):
    """An engine worker process: its public key (X25519, hexadecimal), which is new at each start,
    its capacity and its software.

    Gateways seal requests for the keys of the workers that have loaded the deployment. `engines`
    are the names of the engines that the process can start, as reported by its heartbeat at
    `seen_at`. `memory` is the number of bytes for models, `devices` the number of devices of kind
    `device`, and `labels` are set by its operator. `code` has its packages by task, and
    `environments` the fingerprints of its software by engine.
    """

    worker = models.CharField(max_length=120, unique=True)
    public_key = models.CharField(max_length=64)
    registered_at = models.DateTimeField()
    engines = models.JSONField(default=list, db_default=Value([], JSONField()))
    seen_at = models.DateTimeField(null=True, blank=True)
    memory = models.PositiveBigIntegerField(default=0, db_default=0)
    device = models.CharField(
        max_length=DEVICE_MAX, choices=Device.choices, default=Device.CPU, db_default=Device.CPU
    )
    devices = models.PositiveSmallIntegerField(default=0, db_default=0)
    labels = models.JSONField(default=list, db_default=Value([], JSONField()))
    code = models.JSONField(default=dict, db_default=Value({}, JSONField()))
    environments = models.JSONField(default=dict, db_default=Value({}, JSONField()))

    class Meta:
        ordering = ("worker",)

    def __str__(self) -> str:
        return self.worker


class ServingPeriod(models.Model):
    """Period in which a deployment served; answers "what served then?".

    The row is inserted with the transition that begins it, at the time of its audit event, and
    closed once, with the transition that ends it. Database triggers refuse any other change.
    `digest` was computed by the first ready replica while loading; `ended_as` is the next state of
    the deployment.
    """

    deployment = models.ForeignKey(
        Deployment, on_delete=models.PROTECT, related_name="periods", db_index=False
    )
    digest = models.CharField(max_length=64)
    serving_from = models.DateTimeField()
    serving_until = models.DateTimeField(null=True, blank=True)
    ended_as = models.CharField(max_length=10, choices=DeploymentState.choices, blank=True)
    # A trigger checks that the events exist. A foreign key would lock them and block the sealer.
    began_event = models.ForeignKey(
        "governance.AuditEvent",
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    ended_event = models.ForeignKey(
        "governance.AuditEvent",
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
        null=True,
        blank=True,
    )

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("deployment",),
                condition=Q(serving_until__isnull=True),
                name="one_open_period_per_deployment",
            ),
            models.CheckConstraint(
                name="a_period_ends_after_it_began",
                condition=Q(serving_until__isnull=True) | Q(serving_until__gte=F("serving_from")),
            ),
            models.CheckConstraint(
                name="an_ended_period_says_how",
                condition=Q(serving_until__isnull=True, ended_event__isnull=True, ended_as="")
                | Q(
                    serving_until__isnull=False,
                    ended_event__isnull=False,
                    ended_as__in=("pending", "refused", "stopped"),
                ),
            ),
        )
        indexes = (
            models.Index(fields=("deployment", "serving_from"), name="periods_of_deployment"),
        )

    def __str__(self) -> str:
        return f"{self.deployment} from {self.serving_from:%Y-%m-%d %H:%M}"


class StatedModel(models.Model):
    """A model and a fingerprint that answers of a hosted deployment stated.

    Egress workers add rows and renew `seen_at` once an hour. The controller compares each with the
    approved description: `differs` is its result, and `recorded_at` the last `seen_at` that it
    compared.
    """

    deployment = models.ForeignKey(
        Deployment, on_delete=models.PROTECT, related_name="stated_models", db_index=False
    )
    model = models.CharField(max_length=STATED_MODEL_MAX + 1, blank=True)
    fingerprint = models.CharField(max_length=FINGERPRINT_MAX + 1, blank=True)
    first_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    differs = models.BooleanField(null=True)
    recorded_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                name="stated_once_by_a_deployment", fields=("deployment", "model", "fingerprint")
            ),
            models.CheckConstraint(
                name="stated_is_compared_when_recorded",
                condition=Q(differs__isnull=True, recorded_at__isnull=True)
                | Q(differs__isnull=False, recorded_at__isnull=False),
            ),
        )
        indexes = (
            models.Index(fields=("seen_at",), condition=Q(differs=True), name="stated_differing"),
        )

    def __str__(self) -> str:
        return f"{self.model} {self.fingerprint}".strip() or "no name"
