"""Deployments that a key may see and use, decided by the policy in the snapshot."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.conf import settings

from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.http.asgi import Scope
from governance.errors import NotFound, NotPermitted, Unavailable
from governance.permissions import Action
from governance.policy.context import (
    CLASSIFICATIONS,
    UNDECLARED_CLASSIFICATION,
    base_context,
)
from governance.policy.engine import PolicyDecision, may_know_of
from registry.catalog.requests import RequestInvalid, printable
from workers.deployments.models import TargetRole

# Retry-After while a replica starts, in seconds.
_REPLICA_WAIT_S = 5.0

# Error code when the deployment's release no longer permits serving.
RELEASE_ENDED = "release_not_servable"
CLASSIFICATION_HEADER = b"assay-data-classification"


def declared_classification(scope: Scope) -> str:
    """Return the classification that the caller declares, `internal` by default. If a proxy adds
    another header, the most sensitive value counts.

    Raises:
        RequestInvalid: the header is not one of the four classifications.
    """
    values = [value for name, value in scope["headers"] if name == CLASSIFICATION_HEADER]
    declared = UNDECLARED_CLASSIFICATION if not values else CLASSIFICATIONS[0]
    for value in values:
        text = value.decode("latin-1").strip().lower()
        if text not in CLASSIFICATIONS:
            raise RequestInvalid(
                f"Assay-Data-Classification is {printable(text, 40)}; "
                f"it is one of {', '.join(CLASSIFICATIONS)}.",
                code="invalid_classification",
            )
        declared = max(declared, text, key=CLASSIFICATIONS.index)
    return declared


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Properties of a request other than its key and deployment. `tokens` is the estimate of its
    prompt plus the longest possible answer. `answer_classification` is the classification of the
    file for the answer; the answer must not be more sensitive. It is empty without a file.
    """

    client_address: str
    classification: str = UNDECLARED_CLASSIFICATION
    tokens: int = 1
    answer_classification: str = ""

    def context(self, entry: DeploymentEntry) -> dict[str, Any]:
        """Return the context of a decision about `entry`, now."""
        attributes = entry.resource.attributes
        return {
            **base_context(self.client_address),
            "classification": self.classification,
            "environment": attributes["environment"],
            "modality": attributes["modality"],
            "tokens": self.tokens,
        }


class Grounds(NamedTuple):
    """A deployment, the decision about a request for it, and the context of that decision."""

    deployment: DeploymentEntry
    decision: PolicyDecision
    context: Mapping[str, Any]


class ModelUnknown(NotFound):
    """The deployment does not exist, or the key may not know of it. `hidden` is the decision in the
    second case; it is recorded, but not shown to the caller.
    """

    code = "model_not_found"

    def __init__(self, message: str, *, hidden: InvocationDenied | None = None) -> None:
        super().__init__(message)
        self.hidden = hidden


class InvocationDenied(NotPermitted):
    """The policy, the key or the deployment's release does not permit the request."""

    def __init__(self, message: str, *, code: str, grounds: Grounds) -> None:
        super().__init__(message, code=code)
        self.grounds = grounds


class NotConfirmed(Unavailable):
    """The controller's last confirmation of the release is too old; nothing is charged."""

    code = "release_not_confirmed"


class NotReady(Unavailable):
    """No replica has loaded the deployment; nothing is charged."""

    code = "no_ready_replica"

    @classmethod
    def asleep(cls, entry: DeploymentEntry) -> NotReady:
        """Return the error for a deployment that was scaled to zero and is being loaded."""
        return cls(
            f"Deployment {entry.name} was scaled to zero and is being loaded.",
            hint="Try again after the time that Retry-After states; nothing was charged.",
            retry_after=max(_REPLICA_WAIT_S, math.ceil(entry.load_s)),
        )


def find_deployment(
    snapshot: Snapshot,
    key: KeyEntry,
    name: str,
    circumstances: Circumstances,
    target: int | None = None,
) -> Grounds:
    """Return the deployment called `name`, and the decision that permits `key` to invoke it. With
    `target`, return this one of its targets: the policy must permit the primary, too, since targets
    add no access to a name.

    Raises:
        ModelUnknown: it does not exist, or the key may not know of it.
        InvocationDenied: the policy denies it, the release no longer permits serving, or a
            condition of the release excludes the key's department.
        NotConfirmed: the controller has not confirmed the release recently.
    """
    primary = snapshot.deployments.get(name)
    if target is None or (primary is not None and primary.id == target):
        if primary is None:
            raise model_unknown(name)
        return usable(snapshot, key, primary, circumstances)
    if primary is not None:
        permitted(snapshot, key, primary, circumstances)
    entry = snapshot.entry(target)
    if entry is None or entry.role == TargetRole.SHADOW:
        raise model_unknown(name)
    return usable(snapshot, key, entry, circumstances)


def permitted(
    snapshot: Snapshot, key: KeyEntry, entry: DeploymentEntry, circumstances: Circumstances
) -> Grounds:
    """Return the decision that permits `key` to invoke this deployment, whether it serves or not.

    Raises:
        ModelUnknown: the key may not know of it.
        InvocationDenied: the policy denies it.
    """
    name = entry.name
    actor, resource, action = key.principal, entry.resource, Action.DEPLOYMENT_INVOKE
    context = circumstances.context(entry)
    decision = snapshot.decide(key, entry, context)
    grounds = Grounds(entry, decision, context)
    if not decision.allowed:
        refused = InvocationDenied(decision.reason, code="policy_denied", grounds=grounds)
        if not may_know_of(snapshot.policy, actor, action, resource, context):
            raise model_unknown(name, refused)
        raise refused
    return grounds


def usable(
    snapshot: Snapshot, key: KeyEntry, entry: DeploymentEntry, circumstances: Circumstances
) -> Grounds:
    """Return the decision that permits `key` to invoke this deployment, which serves. Raises as
    `find_deployment`."""
    grounds = permitted(snapshot, key, entry, circumstances)
    if obstacle := entry.obstacle or _expired(entry):
        raise InvocationDenied(
            f"Deployment {entry.name} does not serve. {obstacle}",
            code=RELEASE_ENDED,
            grounds=grounds,
        )
    if condition := _outside(entry, key):
        raise InvocationDenied(
            f"Deployment {entry.name} does not serve department {key.department}: {condition}.",
            code="release_condition",
            grounds=grounds,
        )
    if entry.leased_until <= time.monotonic():
        raise NotConfirmed(
            f"Release {entry.release} of deployment {entry.name} was not confirmed for "
            f"{settings.SERVING_LEASE_S} s, so it does not serve.",
            hint="The controller confirms it; nothing was charged.",
            retry_after=_REPLICA_WAIT_S,
        )
    return grounds


def is_ready(entry: DeploymentEntry) -> bool:
    """Return true if a replica that loaded the approved digest is alive."""
    return entry.ready_until > time.time()


def require_ready(entry: DeploymentEntry) -> None:
    """Raise NotReady if no replica that loaded the approved digest is alive."""
    if not is_ready(entry):
        if entry.may_sleep:
            raise NotReady.asleep(entry)
        raise NotReady(
            f"Deployment {entry.name} has no ready replica.",
            hint="Try again in a few seconds; nothing was charged.",
            retry_after=_REPLICA_WAIT_S,
        )


def visible_deployments(
    snapshot: Snapshot, key: KeyEntry, circumstances: Circumstances, names: Set[str]
) -> list[tuple[DeploymentEntry, bool]]:
    """Return those of the deployments `names` that `key` may see, by name, each with true if it may
    use it. Takes about 0.1 ms for each."""
    visible = []
    policy, actor, action = snapshot.policy, key.principal, Action.DEPLOYMENT_INVOKE
    for name in sorted(snapshot.deployments.keys() & names):
        entry = snapshot.deployments[name]
        context = circumstances.context(entry)
        usable = snapshot.decide(key, entry, context).allowed
        if usable or may_know_of(policy, actor, action, entry.resource, context):
            listed = not key.allowed_deployments or name in key.allowed_deployments
            lapsed = entry.leased_until <= time.monotonic()
            stopped = lapsed or entry.obstacle or _expired(entry) or _outside(entry, key)
            visible.append((entry, usable and listed and not stopped))
    return visible


def known_task(snapshot: Snapshot, key: KeyEntry, name: str, circumstances: Circumstances) -> str:
    """Return the deployment's task; empty if it does not exist or `key` may not know of it."""
    entry = snapshot.deployments.get(name)
    if entry is None:
        return ""
    actor, action = key.principal, Action.DEPLOYMENT_INVOKE
    context = circumstances.context(entry)
    visible = snapshot.decide(key, entry, context).allowed or may_know_of(
        snapshot.policy, actor, action, entry.resource, context
    )
    return entry.task if visible else ""


def _expired(entry: DeploymentEntry) -> str:
    return f"Release {entry.release} is expired." if entry.expires_at <= time.time() else ""


def _outside(entry: DeploymentEntry, key: KeyEntry) -> str:
    """Return the condition of the release that excludes the key's department, or an empty text."""
    if not entry.only or key.department in entry.only:
        return ""
    only = ", ".join(sorted(entry.only))
    return f"its release {entry.release} was approved on the condition that only {only} uses it"


def model_unknown(name: str, hidden: InvocationDenied | None = None) -> ModelUnknown:
    """Return the error for a deployment that does not exist or that the caller may not know of."""
    return ModelUnknown(
        f"The model `{printable(name)}` does not exist or you do not have access to it.",
        hidden=hidden,
    )
