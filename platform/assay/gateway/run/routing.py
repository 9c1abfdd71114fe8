"""Choose the target that answers a request, and the next one if it fails to begin.

The primary and the targets of a deployment each have a release of their own. The policy must permit
the primary, since targets add no access to a name; beyond that, each target is checked like
any deployment, and one that is refused is skipped.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from assay.gateway.access.admission import Admitted, ModelRequest
from assay.gateway.access.authentication import KeyRefused
from assay.gateway.access.decisions import is_ready, permitted, require_ready
from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.prompts import add_prompt_tokens, check_prompt
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.http.errors import DeadlineUnreachable, EngineFailed, NoUsableKey
from assay.gateway.quota.quotas import QueueFull
from assay.gateway.run.breakers import Breakers, RetryBudget
from governance.errors import DomainError, Unavailable
from registry.catalog.endpoints import Plan
from registry.catalog.inputs import MediaInput
from workers.deployments.models import TargetRole
from workers.references import contains
from workers.routing.schemas import DAYS, RoutingConditions

# A place is computed from four bytes of a digest.
_PLACES = 1 << 32


class TargetsPaused(Unavailable):
    """All targets that may answer pause after failures (503); nothing is charged."""

    code = "targets_paused"


class Aim(NamedTuple):
    """A chosen target: its admission, and plan and request for it."""

    admitted: Admitted
    plan: Plan
    model_request: ModelRequest


@dataclass(frozen=True, slots=True)
class Traits:
    """Properties of a request by which targets are chosen. `place`, from 0 to 100, decides about
    shares; all requests of a user have the same. `release` answered last in the conversation that
    the request continues.
    """

    endpoint: str
    department: str
    prompt_tokens: int
    modalities: frozenset[str]
    place: float
    release: int | None = None

    def meet(self, conditions: RoutingConditions, now: datetime) -> bool:
        """Return true if the request meets all conditions of a target."""
        least, most = conditions.prompt_tokens_min, conditions.prompt_tokens_max
        return (
            (not conditions.departments or self.department in conditions.departments)
            and (not conditions.endpoints or self.endpoint in conditions.endpoints)
            and (least is None or self.prompt_tokens >= least)
            and (most is None or self.prompt_tokens <= most)
            and (not conditions.modalities or bool(self.modalities & {*conditions.modalities}))
            and _at_this_time(conditions, now)
        )


def _at_this_time(conditions: RoutingConditions, now: datetime) -> bool:
    if conditions.days and DAYS[now.weekday()] not in conditions.days:
        return False
    begins, ends = conditions.time_from, conditions.time_until
    if begins is None or ends is None:
        return True
    time = f"{now:%H:%M}"
    return begins <= time < ends if begins < ends else time >= begins or time < ends


def modalities_of(plan: Plan) -> frozenset[str]:
    """Return the kinds of media in a plan; `text` if it has none."""
    kinds: set[str] = set()

    def note(value: Any) -> bool:
        if isinstance(value, MediaInput):
            kinds.add(str(value.kind))
        return False

    contains(plan.inputs.to_wire(), note)
    return frozenset(kinds or {"text"})


def place_of(owner: str, name: str) -> float:
    """Return the place of `name`, a user, conversation or request of `owner`, from 0 to 100."""
    digest = hashlib.sha256(f"{owner}\0{name}".encode("utf-8", "replace")).digest()
    return 100 * int.from_bytes(digest[:4], "big") / _PLACES


def candidates(
    primary: DeploymentEntry, targets: Iterable[DeploymentEntry], traits: Traits
) -> list[DeploymentEntry]:
    """Return the target for a request, then those to fall back to, in order."""
    now = datetime.now(UTC)
    met = [each for each in targets if traits.meet(each.conditions, now)]
    chosen, edge = primary, 0
    for target in met:
        if target.role in (TargetRole.SERVE, TargetRole.CANARY):
            edge += target.weight
            if traits.place < edge:
                chosen = target
                break
    fallbacks = [each for each in met if each.role == TargetRole.FALLBACK]
    return [chosen, *([] if chosen is primary else [primary]), *fallbacks]


def may_fall_back(error: DomainError) -> bool:
    """Return true for a failure of the target: its worker is gone, its queue is full, or its engine
    or provider failed. Refusals of the request itself are final."""
    if isinstance(error, EngineFailed):
        return error.status == 429 or error.status >= 500
    return isinstance(error, (QueueFull, NoUsableKey, DeadlineUnreachable))


@dataclass(slots=True)
class TargetChoice:
    """Targets for one request. `base` is the plan without any target's prompt. `asleep` are the IDs
    of targets that would have been chosen, but are scaled to zero. `grounded` returns the plan with
    passages of a knowledge base for a target, or raises DomainError if the caller may not read them
    any more; None for requests without passages."""

    router: Router
    model_request: ModelRequest
    base: Plan
    traits: Traits
    tried: list[dict[str, Any]] = field(default_factory=list)
    asleep: list[int] = field(default_factory=list)
    grounded: Callable[[Snapshot, DeploymentEntry], Plan] | None = None

    def take(self, snapshot: Snapshot) -> Aim:
        """Return the first target that may answer now and was not tried.

        Raises:
            DomainError: there is none; the error is that of the first.
        """
        primary = snapshot.deployments.get(self.base.model)
        if primary is None:
            return self._aim(snapshot, None)
        key = self.model_request.caller.authenticate(snapshot)
        circumstances = self.model_request.caller.circumstances
        permitted(snapshot, key, primary, circumstances)
        tried = {each["deployment"] for each in self.tried}
        first: DomainError | None = None
        sleeping: Aim | None = None
        for entry in self._candidates(snapshot, primary):
            if entry.id in tried:
                continue
            try:
                aim = self._aim(snapshot, entry)
                if not is_ready(entry) and entry.may_sleep:
                    self.asleep.append(entry.id)
                    sleeping = sleeping or aim
                    continue
                require_ready(entry)
                self.router.take(entry)
            except KeyRefused:
                raise
            except DomainError as error:
                first = first or error
                continue
            return aim
        if sleeping is not None:
            return sleeping
        raise first or TargetsPaused(f"No other target of {self.base.model} may answer now.")

    def _candidates(self, snapshot: Snapshot, primary: DeploymentEntry) -> list[DeploymentEntry]:
        targets = snapshot.targets_of(primary)
        for entry in (primary, *targets):
            if entry.release == self.traits.release and entry.role != TargetRole.SHADOW:
                # The conversation goes on with the release that answered it last.
                return [entry]
        return candidates(primary, targets, self.traits)

    def _aim(self, snapshot: Snapshot, entry: DeploymentEntry | None) -> Aim:
        plan = self.base
        if entry is not None:
            plan = plan if self.grounded is None else self.grounded(snapshot, entry)
            plan = add_prompt_tokens(plan, entry.own_prompt)
        model_request = replace(
            self.model_request,
            caller=self.model_request.caller.under(tokens=plan.tokens),
            target=None if entry is None else entry.id,
        )
        admitted = model_request.admit(snapshot)
        check_prompt(plan, admitted.deployment.own_prompt)
        return Aim(admitted, plan, model_request)

    def route(self, deployment: DeploymentEntry) -> dict[str, Any]:
        """Return the audit log's record of the choice of `deployment`."""
        route: dict[str, Any] = {
            "role": deployment.role or "primary",
            "deployment": deployment.id,
        }
        return {**route, "after": list(self.tried)} if self.tried else route


class Router:
    """Choices of one gateway process."""

    def __init__(self) -> None:
        self.breakers = Breakers()
        self.retries = RetryBudget()

    def take(self, entry: DeploymentEntry) -> None:
        """Take a target that has a ready replica. Raises TargetsPaused while it pauses."""
        if not self.breakers.take(entry.id):
            raise TargetsPaused(
                f"Deployment {entry.name} failed several requests in a row, so it gets none for a "
                "moment; nothing was charged.",
                hint="Try again after the time that Retry-After states.",
                retry_after=max(1, math.ceil(self.breakers.wait_s(entry.id))),
            )

    def failed(self, entry: DeploymentEntry, error: DomainError) -> None:
        """Note that a request to a target ended with an error. The target works if it refused the
        request itself."""
        if not isinstance(error, EngineFailed):
            return
        if not may_fall_back(error):
            self.breakers.answered(entry.id)
            return
        self.breakers.failed(
            entry.id, entry.name, busy=error.status == 429, retry_after=error.retry_after
        )


def moved(release: int, name: str) -> str:
    """Return the header's sentence for a conversation that continues with another release."""
    return f"release {release}, which began it, does not serve as {name} now"
