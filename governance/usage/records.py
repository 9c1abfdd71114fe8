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

from governance.usage.sealing import seal, unseal
from governance.usage.units import Unit

USAGE_STREAM = "assay:usage"
USAGE_GROUP = "ledger"
JOBS = "jobs/"

# Bounds of one entry, far above what the gateway admits: a second line behind the MAC. A request
# takes at most an hour of the device and 10,000 units of the currency, a job ten years.
MOST_TOKENS, MOST_UNITS = 100_000_000, 1_000_000_000
MOST_REQUEST_DEVICE_MS, MOST_REQUEST_MICRO = 3_600_000, 10_000 * 1_000_000
MOST_SOURCES = 100
MOST_JOB_DEVICE_MS, MOST_JOB_MICRO = 3660 * 86_400_000, 1_000_000_000 * 1_000_000


@dataclass(frozen=True, slots=True)
class UsageEntry:
    """One settled or refused request. `occurred_at` in seconds since the epoch, times in ms.

    `outcome` is `ok`, `canceled`, `failed`, or for a request that was refused before it ran the
    refusal's code (`policy_denied`, `quota_exceeded`, `invalid_key`, …); `reason` is the sentence.
    A refused request becomes an audit event only; a run one a usage record and an audit event; a
    job, whose `endpoint` begins with `jobs/`, has its events and becomes a usage record only.
    `cost_micro` is in micro-units of the currency. `limit` names the limit that stopped it,
    `shadowed` those that would have if they were no shadows. `key_counted` is the key on which it
    counts: the first of those that succeeded one another. `decision` is what the policy decided and
    on what, as `governance.policy.decisions` writes it. `person` is who asked, by `token`, in the
    playground; then `key_public_id` names the playground and no key. `action` is what was asked
    for; who only looks at the models ran nothing and is `ok` all the same. `units` is how much was
    used of `unit`, in which the deployment's task is metered: of tokens always the sum of the two
    kinds, and in another unit no tokens are recorded. An entry without them, from an older gateway,
    is in tokens. `sources` are the ids of the document versions of `knowledge_base` whose text the
    model or the caller was given. `part_of` is the request that this one was made for, such as the
    embedding of a question.
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
    queue_ms: int = 0
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
            # Half of a surrogate pair, which a key's name or a deployment's may hold.
            text = json.dumps(asdict(self), ensure_ascii=False)
            return text.encode("utf-8", "replace").decode()

    def encode(self) -> str:
        """Return the entry as it travels: JSON behind its MAC.

        Raises:
            ImproperlyConfigured: this process does not have the usage key.
        """
        return seal(self.to_json())

    @classmethod
    def decode(cls, text: str | bytes) -> UsageEntry:
        """Return the entry of what `encode` returned; fields of a newer gateway are passed over.

        Raises:
            ForgedEntry: no process with the usage key wrote it.
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
            raise ValueError(f"it names {len(self.sources)} sources")
        if self.unit != Unit.TOKENS and (self.prompt_tokens or self.completion_tokens):
            raise ValueError(f"it is metered in {self.unit} and has tokens")


_entries: TypeAdapter[UsageEntry] = TypeAdapter(UsageEntry)
