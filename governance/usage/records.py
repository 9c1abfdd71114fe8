"""Usage entries, from the gateway and the controller to the ledger.

Entries travel on one durable Redis Stream, `USAGE_STREAM`, field `entry`: JSON behind a MAC (see
`governance.usage.sealing`). Reading twice is harmless: `request_id` is unique in the ledger.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from pydantic import TypeAdapter

from governance.bounds import MEASURE_MAX
from governance.usage.sealing import seal, unseal
from governance.usage.units import Unit

USAGE_STREAM = "assay:usage"
USAGE_GROUP = "ledger"
JOBS = "jobs/"
# Endpoint of copies of requests that a shadow answers.
SHADOW = f"{JOBS}shadow"
# End of the ID of an attempt that failed before another target answered, and the number of targets
# that one request tries at most.
FAILED, ATTEMPTS_MAX = ".failed", 10

# Limits of one entry, far above what the gateway admits: a second defense after the MAC. A request
# takes at most an hour of device time and 10,000 units of the currency, a job ten years.
MOST_TOKENS, MOST_UNITS = 100_000_000, 1_000_000_000
MOST_REQUEST_DEVICE_MS, MOST_REQUEST_MICRO = 3_600_000, 10_000 * 1_000_000
MOST_SOURCES = 100
MOST_JOB_DEVICE_MS, MOST_JOB_MICRO = 3660 * 86_400_000, 1_000_000_000 * 1_000_000


@dataclass(frozen=True, slots=True)
class Compared:
    """Request whose copy a shadow answered, as release `against` answered it. `agreement`, from 0
    to 1 by `measure`, compares both answers; None if one failed or they cannot be compared."""

    against: int
    failed: bool
    total_ms: int
    units: int
    cost_micro: int
    measure: str = ""
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class UsageEntry:
    """A settled or refused request. `occurred_at` is in seconds since the epoch, other times in ms.

    `outcome` is `ok`, `canceled`, `failed`, or, if the request was refused before it ran, the code
    of the refusal (`policy_denied`, `quota_exceeded`, `invalid_key`, …); `reason` is its sentence.
    A refused request becomes only an audit event; one that ran, a usage record and an audit event;
    a job, whose `endpoint` begins with `jobs/`, only a usage record, because it has its own events.
    `cost_micro` is in micro-units of the currency. `limit` is the limit that stopped the request,
    `shadowed` are shadow limits that would have. `key_counted` is the key whose limits count it:
    the first in a chain of rotations. `decision` is the policy's decision and its input, as written
    by `governance.policy.decisions`. In the playground, `person` is the caller and `token` their
    token; `key_public_id` then names the playground instead of a key. `action` is the requested
    action; a request that only lists models did not run, but is `ok`. `units` is the amount in
    `unit`, the deployment's task's unit: for tokens always the sum of both kinds; with other units,
    tokens are not recorded. An entry without them, from an older gateway, is in tokens. `sources`
    are the IDs of the document versions of `knowledge_base` whose text the model or the caller got.
    `part_of` is the parent request, such as for the embedding of a question, or for an attempt that
    failed before another target answered. `route` is the target of a deployment with several: its
    role, its ID, and earlier attempts. `compared` is the copied request of a shadow's entry.
    `began_ms` is the time when the request arrived, by the clock of Redis in milliseconds since the
    epoch; 0 if unknown.
    """

    request_id: str
    occurred_at: float
    outcome: str
    endpoint: str
    department: str = ""
    key_public_id: str = ""
    key_name: str = ""
    deployment: str = ""
    release: int | None = None
    version_digest: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    load_ms: int = 0
    queue_ms: int = 0
    first_token_ms: int | None = None
    total_ms: int = 0
    device_ms: int = 0
    cost_micro: int = 0
    streamed: bool = False
    policy_version: int | None = None
    rules: list[str] = field(default_factory=list)
    reason: str = ""
    client_address: str = ""
    ran: bool = True
    limit: str = ""
    shadowed: list[str] = field(default_factory=list)
    key_counted: str = ""
    decision: dict[str, Any] = field(default_factory=dict)
    action: str = "deployment:invoke"
    person: int | None = None
    token: str = ""
    unit: Unit = Unit.TOKENS
    units: int = 0
    knowledge_base: str = ""
    sources: list[int] = field(default_factory=list)
    part_of: str = ""
    route: dict[str, Any] = field(default_factory=dict)
    compared: Compared | None = None
    admit_ms: int | None = None
    retry_ms: int | None = None
    connect_ms: int | None = None
    began_ms: int = 0

    def __post_init__(self) -> None:
        if self.unit == Unit.TOKENS:
            object.__setattr__(self, "units", self.prompt_tokens + self.completion_tokens)

    @property
    def is_job(self) -> bool:
        return self.endpoint.startswith(JOBS)

    def to_json(self) -> str:
        try:
            return orjson.dumps(self).decode()
        except TypeError:
            # Lone surrogates, which the name of a key or deployment may contain.
            text = json.dumps(asdict(self), ensure_ascii=False)
            return text.encode("utf-8", "replace").decode()

    def encode(self) -> str:
        """Return the entry as sent on the stream: its MAC, then JSON.

        Raises:
            ImproperlyConfigured: this process does not have the usage key.
        """
        return seal(self.to_json())

    @classmethod
    def decode(cls, text: str | bytes) -> UsageEntry:
        """Decode the result of `encode`; ignore unknown fields of newer gateways.

        Raises:
            ForgedEntry: it was not written by a process with the usage key.
            ValueError: it is not an entry, or not a plausible one.
        """
        entry = _entries.validate_json(unseal(text), strict=True)
        if not entry.request_id:
            raise ValueError("it has no request id")
        entry._require_plausible()
        return entry

    def _require_plausible(self) -> None:
        device_ms, micro = MOST_REQUEST_DEVICE_MS, MOST_REQUEST_MICRO
        if self.is_job:
            device_ms, micro = MOST_JOB_DEVICE_MS, MOST_JOB_MICRO
        if self.compared is not None:
            self._require_comparable(self.compared)
        for name, most in (
            ("prompt_tokens", MOST_TOKENS),
            ("completion_tokens", MOST_TOKENS),
            ("units", MOST_UNITS),
            ("device_ms", device_ms),
            ("cost_micro", micro),
        ):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"{name} is {value}; it must be from 0 to {most}")
        if len(self.sources) > MOST_SOURCES:
            raise ValueError(f"it has {len(self.sources)} sources, more than {MOST_SOURCES}")
        if self.unit != Unit.TOKENS and (self.prompt_tokens or self.completion_tokens):
            raise ValueError(f"it is metered in {self.unit} and has tokens")

    def _require_comparable(self, compared: Compared) -> None:
        plausible = (
            self.endpoint == SHADOW
            and self.release is not None
            and 0 <= compared.total_ms <= MOST_REQUEST_DEVICE_MS
            and 0 <= compared.units <= MOST_UNITS
            and 0 <= compared.cost_micro <= MOST_REQUEST_MICRO
            and len(compared.measure) <= MEASURE_MAX
            and (compared.agreement is None or 0 <= compared.agreement <= 1)
        )
        if not plausible:
            raise ValueError(f"it is compared with {compared}")


_entries: TypeAdapter[UsageEntry] = TypeAdapter(UsageEntry)
