"""Which deployments a key may see and use, decided by the policy in the snapshot."""

from __future__ import annotations

import time

from assay.gateway.errors import printable
from assay.gateway.snapshot import DeploymentEntry, KeyEntry, Snapshot
from governance.errors import NotFound, NotPermitted, Unavailable
from governance.permissions import Action
from governance.policy.engine import PolicyDecision, decide, may_know_of

# What a client is told to wait for a replica to come up, in seconds.
_REPLICA_WAIT_S = 5.0


class ModelUnknown(NotFound):
    """No such deployment, or not one that the key may know of."""

    code = "model_not_found"


class Refused(NotPermitted):
    """The policy forbids it. `decision` is what was decided, `deployment` on what."""

    def __init__(
        self, message: str, *, code: str, deployment: DeploymentEntry, decision: PolicyDecision
    ) -> None:
        super().__init__(message, code=code)
        self.deployment = deployment
        self.decision = decision


class NotReady(Unavailable):
    """No replica has loaded the deployment; nothing is charged."""

    code = "no_ready_replica"


def find_deployment(
    snapshot: Snapshot, key: KeyEntry, name: str
) -> tuple[DeploymentEntry, PolicyDecision]:
    """The deployment called `name`, and the decision that lets `key` invoke it.

    Raises:
        ModelUnknown: there is none that the key may know of.
        Refused: the policy says no, or its release no longer permits serving.
    """
    entry = snapshot.deployments.get(name)
    if entry is None:
        raise model_unknown(name)
    actor, resource, action = key.principal, entry.resource, Action.DEPLOYMENT_INVOKE
    decision = decide(snapshot.policy, actor, action, resource)
    if not decision.allowed:
        if not may_know_of(snapshot.policy, actor, action, resource):
            raise model_unknown(name)
        raise Refused(decision.reason, code="policy_denied", deployment=entry, decision=decision)
    if obstacle := entry.obstacle or _expired(entry):
        raise Refused(
            f"Deployment {entry.name} does not serve: {obstacle}.",
            code="release_not_servable",
            deployment=entry,
            decision=decision,
        )
    return entry, decision


def require_ready(entry: DeploymentEntry) -> None:
    """Raises NotReady when no replica that loaded the approved digest is alive."""
    if entry.ready_until <= time.time():
        raise NotReady(
            f"Deployment {entry.name} has no ready replica.",
            hint="Try again in a few seconds; nothing was charged.",
            retry_after=_REPLICA_WAIT_S,
        )


def visible_deployments(snapshot: Snapshot, key: KeyEntry) -> list[tuple[DeploymentEntry, bool]]:
    """Every deployment that `key` may see, by name, and whether it may use it."""
    found = []
    for name in sorted(snapshot.deployments):
        entry = snapshot.deployments[name]
        usable = decide(
            snapshot.policy, key.principal, Action.DEPLOYMENT_INVOKE, entry.resource
        ).allowed
        if usable or may_know_of(
            snapshot.policy, key.principal, Action.DEPLOYMENT_INVOKE, entry.resource
        ):
            listed = not key.allowed_deployments or entry.name in key.allowed_deployments
            found.append((entry, usable and listed and not (entry.obstacle or _expired(entry))))
    return found


def _expired(entry: DeploymentEntry) -> str:
    return f"its release {entry.release} is expired" if entry.expires_at <= time.time() else ""


def model_unknown(name: str) -> ModelUnknown:
    """The error for a name that is not there, or may not be known to be: they look alike."""
    return ModelUnknown(
        f"The model `{printable(name)}` does not exist or you do not have access to it."
    )
