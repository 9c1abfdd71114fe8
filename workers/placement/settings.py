"""Replicas, labels, device, limits and queue weights of a deployment: settings that need no
approval."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from governance.errors import InvalidInput
from workers.deployments.models import (
    QUEUE_AGE_MAX_S,
    QUEUE_AGE_S,
    QUEUE_WEIGHT_MAX,
    QUEUE_WEIGHTS_MAX,
    REPLICAS_MAX,
    STREAM_IDLE_MAX,
    STREAM_TOTAL_MAX,
    Deployment,
    Device,
)

LABELS_MAX = 10
LABEL_MAX = 40
_LABEL = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._=-]{{0,{LABEL_MAX - 1}}}")


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """Number of replicas of a deployment, the workers that may hold them, and stream limits.

    With `replicas_min` 0, it is unloaded while it gets no requests. Between the two numbers,
    replicas are added when requests wait for longer than `queue_age_s` seconds. A worker needs all
    `labels` and the `device`; "" means any. A streamed answer may take `stream_total_s` seconds in
    all, and `stream_idle_s` between two tokens; None means `ASSAY_GATEWAY_REQUEST_TIMEOUT_S`.
    While requests of several departments wait, each gets turns by its `queue_weights`, 1 by
    default.

    Raises:
        InvalidInput: a number is out of bounds, a label is not valid, or the device is unknown.
    """

    replicas_min: int = 1
    replicas_max: int = 1
    queue_age_s: int = QUEUE_AGE_S
    labels: Sequence[str] = ()
    device: str = ""
    stream_total_s: int | None = None
    stream_idle_s: int | None = None
    queue_weights: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(sorted(set(self.labels))))
        faults: dict[str, list[str]] = {}
        if not 1 <= self.replicas_max <= REPLICAS_MAX:
            faults["replicas_max"] = [f"Use 1 to {REPLICAS_MAX}."]
        elif not 0 <= self.replicas_min <= self.replicas_max:
            faults["replicas_min"] = [f"Use 0 to {self.replicas_max}, the maximum."]
        if not 1 <= self.queue_age_s <= QUEUE_AGE_MAX_S:
            faults["queue_age_s"] = [f"Use 1 to {QUEUE_AGE_MAX_S} seconds."]
        if len(self.labels) > LABELS_MAX:
            faults["labels"] = [f"Use at most {LABELS_MAX} labels."]
        elif not all(_LABEL.fullmatch(label) for label in self.labels):
            faults["labels"] = [
                f"Use letters, digits and . _ = - in each label, at most {LABEL_MAX} characters."
            ]
        if self.device not in ("", *Device.values):
            faults["device"] = [f"Use {', '.join(Device.values)}, or leave it empty."]
        limits = {"stream_total_s": STREAM_TOTAL_MAX, "stream_idle_s": STREAM_IDLE_MAX}
        for name, most in limits.items():
            seconds = getattr(self, name)
            if seconds is not None and not 1 <= seconds <= most:
                faults[name] = [f"Use 1 to {most} seconds, or leave it empty."]
        if len(self.queue_weights) > QUEUE_WEIGHTS_MAX or not all(
            1 <= weight <= QUEUE_WEIGHT_MAX for weight in self.queue_weights.values()
        ):
            faults["queue_weights"] = [
                f"Use 1 to {QUEUE_WEIGHT_MAX}, for at most {QUEUE_WEIGHTS_MAX} departments."
            ]
        if faults:
            raise InvalidInput("These replica settings are not valid.", fields=faults)

    @classmethod
    def of(cls, deployment: Deployment) -> ReplicaSettings:
        """Return the settings of a deployment."""
        return cls(
            replicas_min=deployment.replicas_min,
            replicas_max=deployment.replicas_max,
            queue_age_s=deployment.queue_age_s,
            labels=deployment.required_labels,
            device=deployment.required_device,
            stream_total_s=deployment.stream_total_s,
            stream_idle_s=deployment.stream_idle_s,
            queue_weights=deployment.queue_weights,
        )

    def columns(self, replicas: int = 1) -> dict[str, Any]:
        """Return the columns of a deployment, with `replicas` clamped to the bounds."""
        return {
            "replicas_min": self.replicas_min,
            "replicas_max": self.replicas_max,
            "queue_age_s": self.queue_age_s,
            "replicas_wanted": min(max(replicas, self.replicas_min), self.replicas_max),
            "required_labels": list(self.labels),
            "required_device": self.device,
            "stream_total_s": self.stream_total_s,
            "stream_idle_s": self.stream_idle_s,
            "queue_weights": dict(self.queue_weights),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, for the audit log."""
        return {**asdict(self), "labels": list(self.labels)}
