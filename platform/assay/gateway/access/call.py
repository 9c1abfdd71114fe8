"""State of one request while it is answered, and its entry in the ledger."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assay.gateway.access.admission import Admitted
from assay.gateway.access.decisions import Grounds
from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.http.asgi import Headers
from assay.gateway.http.errors import is_messages
from assay.gateway.monitoring.times import TokenGaps
from governance.permissions import Action
from governance.policy.decisions import Authorization, joined, with_outcome
from governance.policy.engine import PolicyDecision
from governance.usage.records import UsageEntry
from governance.usage.units import Unit
from registry.catalog.requests import printable
from workers.wire import Done

# Status of a request whose client hung up, as in the logs of nginx.
CLIENT_GONE = 499


def new_request_id() -> str:
    """Return `req_` and 128 random bits in hex."""
    return f"req_{secrets.token_hex(16)}"


@dataclass(slots=True)
class Call:
    """One request, filled in while it is parsed.

    `recorded` is true once the ledger has its entry, `responding` once the answer has begun.
    `limit` is the quota that stopped it; `shadowed` are quotas that would have, if enforced.
    `context` holds the time and place that the decision was based on. `policy` is the number of the
    policy in force; `decision` names the one that decided. `sources` are the document versions of
    `knowledge_base` that the model received, `searched` the decision that permitted the search.
    `part_of` is the request or batch that this request belongs to. `settled` is the ledger's entry
    once a reserved request is settled; `computed` are units that count on quotas although the
    request failed. `load_ms` is the wait for a deployment that was scaled to zero, `admit_ms` the
    other time until the request was sent to workers, `retry_ms` the time on targets that failed
    before. `began_ms` is the start by the clock of Redis. `first_token_ms` is the time until the
    first piece of a streamed answer, `gaps` are those between its tokens.
    `status` is the HTTP status of the answer, or of the error that ended it; 499 if the client hung
    up. `done` is the last event of an answer that was charged. `traceparent` names the parent span
    of the worker's spans. `route` says which of several targets answers, and which failed before;
    `moved` why a conversation does not go on with the release that began it. `received` is the size
    of the body in bytes.
    """

    endpoint: str
    client_address: str
    request_id: str = field(default_factory=new_request_id)
    occurred_at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)
    key: KeyEntry | None = None
    requested_model: str = ""
    deployment: DeploymentEntry | None = None
    decision: PolicyDecision | None = None
    streamed: bool = False
    recorded: bool = False
    responding: bool = False
    outcome: str = "ok"
    limit: str = ""
    shadowed: list[str] = field(default_factory=list)
    context: Mapping[str, Any] = field(default_factory=dict)
    action: str = Action.DEPLOYMENT_INVOKE.value
    policy: int | None = None
    knowledge_base: str = ""
    sources: tuple[int, ...] = ()
    searched: Authorization | None = None
    part_of: str = ""
    settled: UsageEntry | None = None
    computed: int = 0
    load_ms: int = 0
    admit_ms: int | None = None
    retry_ms: int | None = None
    began_ms: int = 0
    first_token_ms: int | None = None
    gaps: TokenGaps | None = None
    status: int = 200
    done: Done | None = None
    traceparent: str = ""
    route: dict[str, Any] = field(default_factory=dict)
    moved: str = ""
    received: int = 0
    _decision_of: PolicyDecision | None = None
    _decision_as_json: dict[str, Any] = field(default_factory=dict)

    def admit(self, admitted: Admitted) -> None:
        """Record the key and the decision that admitted the request."""
        self.key = admitted.key
        self.decided(admitted.grounds)

    def decided(self, grounds: Grounds) -> None:
        """Record the decision about the request."""
        self.deployment, self.decision, self.context = grounds

    @property
    def unit(self) -> Unit:
        """Unit in which the request is metered."""
        return Unit.TOKENS if self.deployment is None else self.deployment.unit

    @property
    def cost_micro(self) -> int:
        """Cost until now, in micro-units of the currency."""
        return 0 if self.settled is None else self.settled.cost_micro

    @property
    def used_nothing(self) -> bool:
        """True if the request is known to have used no quota and cost nothing."""
        settled = self.settled
        return settled is not None and not (settled.units or settled.cost_micro or self.computed)

    @property
    def elapsed_ms(self) -> int:
        return int((time.perf_counter() - self.started) * 1000)

    def sent(self) -> None:
        """Note the time at which the request goes to the workers of a target."""
        took = self.elapsed_ms - self.load_ms
        if self.admit_ms is None:
            self.admit_ms = took
        else:
            self.retry_ms = took - self.admit_ms

    def arrived(self, choice: int, tokens: int) -> None:
        """Note the time of a piece of a streamed answer."""
        if self.first_token_ms is None or self.gaps is None:
            self.first_token_ms, self.gaps = self.elapsed_ms, TokenGaps()
        self.gaps.arrived(choice, tokens)

    def headers(self) -> Headers:
        """Return the headers of every answer, including a deployment's version and release."""
        headers = [
            (b"x-request-id", self.request_id.encode()),
            (b"openai-processing-ms", str(self.elapsed_ms).encode()),
        ]
        if is_messages(self.endpoint):
            headers.append((b"request-id", self.request_id.encode()))
        if self.deployment is not None:
            headers.append((b"x-assay-release", str(self.deployment.release).encode()))
            headers.append((b"x-assay-digest", self.deployment.digest.encode()))
            headers += self.deployment.notice
            if self.route:
                headers.append((b"x-assay-served-by", self._served_by().encode()))
        if self.moved:
            headers.append((b"x-assay-conversation", self.moved.encode()))
        if self.decision is not None:
            version = str(self.decision.policy_version).encode()
            headers.append((b"x-assay-policy-version", version))
        return headers

    def _served_by(self) -> str:
        """Return the target that answers and, after a fallback, the last failure."""
        parts = [self.route["role"], f"deployment={self.route['deployment']}"]
        if failed := self.route.get("after"):
            parts += [f"after={printable(failed[-1]['code'], 40)}", f"attempts={len(failed) + 1}"]
        return "; ".join(parts)

    def entry(
        self,
        outcome: str,
        *,
        reason: str = "",
        ran: bool = True,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        queue_ms: int = 0,
        connect_ms: int | None = None,
        device_ms: int = 0,
        units: int = 0,
    ) -> UsageEntry:
        """Return the ledger's entry for the current state of this request.

        If the deployment is not metered in tokens, `units` count and no tokens are recorded.
        """
        key, deployment, decision = self.key, self.deployment, self.decision
        if self.unit != Unit.TOKENS:
            prompt_tokens = completion_tokens = 0
        return UsageEntry(
            request_id=self.request_id,
            occurred_at=self.occurred_at,
            outcome=outcome,
            endpoint=self.endpoint,
            department="" if key is None else key.department or "",
            key_public_id="" if key is None else key.recorded_as,
            key_name="" if key is None else key.name,
            deployment=printable(self.requested_model, 79)
            if deployment is None
            else deployment.name,
            release=None if deployment is None else deployment.release,
            version_digest="" if deployment is None else deployment.digest,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            load_ms=self.load_ms,
            queue_ms=queue_ms,
            first_token_ms=self.first_token_ms,
            admit_ms=self.admit_ms,
            retry_ms=self.retry_ms,
            connect_ms=connect_ms,
            began_ms=self.began_ms,
            total_ms=self.elapsed_ms,
            device_ms=device_ms,
            cost_micro=0
            if deployment is None or not ran
            else deployment.tariff.cost(
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                device_ms=device_ms,
                unit=self.unit,
                units=units,
            ),
            streamed=self.streamed,
            policy_version=self.policy if decision is None else decision.policy_version,
            rules=[] if decision is None else list(decision.rules),
            reason=printable(reason, 1000),
            client_address=self.client_address,
            ran=ran,
            limit=self.limit,
            shadowed=self.shadowed,
            key_counted="" if key is None else key.counted_as,
            decision=self._decision_record(),
            action=self.action,
            person=None if key is None else key.person,
            token="" if key is None or key.person is None else key.public_id,
            unit=self.unit,
            units=units,
            knowledge_base=self.knowledge_base,
            sources=list(self.sources),
            part_of=self.part_of,
            route=self.route,
        )

    def _decision_record(self) -> dict[str, Any]:
        """Return the decision with the inputs that repeat it; empty without a decision."""
        key, deployment, decision = self.key, self.deployment, self.decision
        if deployment is None and self.searched is not None:
            return self.searched.to_json()
        if key is None or deployment is None or decision is None:
            return {}
        if self._decision_of is not decision or not self._decision_as_json:
            action = Action.DEPLOYMENT_INVOKE.value
            inputs = joined(key.recorded, action, deployment.recorded, self.context)
            self._decision_of = decision
            self._decision_as_json = with_outcome(inputs, decision)
        return self._decision_as_json
