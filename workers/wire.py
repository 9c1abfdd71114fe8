"""Messages between gateways and engine workers before sealing. Uses neither Django nor torch.

A request is a Celery message on the queue of its deployment. Replies are on one Redis Stream per
gateway process (`reply_stream`), so that a gateway reads all replies over one connection; nodes
have their own streams and channels. A notice on `CANCEL_CHANNEL` cancels a request.
`workers.sealing` seals and opens these messages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from pydantic_core import from_json, to_json

from registry.catalog.endpoints import TokenScore
from registry.catalog.generation import MAX_CHOICES

INFERENCE_TASK = "workers.celery_tasks.inference.run"
JOB_TASK = "workers.celery_tasks.jobs.run"
JOB_QUEUE = "compute"
# Queue of engine workers that have no deployment yet; nothing is ever sent there.
IDLE_QUEUE = "engine.none"
CANCEL_CHANNEL = "assay:cancel"
SNAPSHOT_CHANNEL = "assay:snapshot"  # wakes gateways: keys, policy, releases or deployments changed
DEPLOYMENTS_CHANNEL = "assay:deployments"  # wakes engine workers and placement
CONTROLLER_CHANNEL = "assay:controller"  # wakes the controller: a job was queued or delivered
# Sorted set: IDs of requested deployments that are scaled to zero, by time.
WANTED_KEY = "assay:wanted"
# Sorted set: IDs of deployments that answer requests and may be scaled to zero, by time.
IN_USE_KEY = "assay:in-use"
REPLY_MAXLEN = 100_000
REPLY_TTL_S = 600
# A live worker process sets its key this often, and the key expires after this time.
ALIVE_EVERY_S = 1.0
ALIVE_FOR_MS = 5000


# Digits of a worker's public key in the names of its own queues.
_QUEUE_KEY = 16
# In place of a worker's name: wakes the controller alone.
_NO_WORKER = "-"
_REPLIES = "assay:reply:"
# Sorted set: names of workers by time of the last sign of life.
_PRESENCE = "assay:workers"
# Sorted set: names of workers by number of dropped messages.
_DROPPED = "assay:dropped"


def worker_address(realm: str, public_key: str) -> str:
    """Return the name of a worker process on the broker: its public key, prefixed by the realm of
    its node, if any.

    A realm is one enrollment of a node (`Node.realm`). The broker's user of a node may write only
    keys with its realm in their names.
    """
    return f"{realm}/{public_key}" if realm else public_key


def load_key(realm: str, worker: str) -> str:
    """Return the broker's key with the last report of an engine worker's load. Its name begins with
    that of the worker's own keys, which its user on the broker may write."""
    return f"assay:worker:{realm}/load/{worker}" if realm else f"assay:worker:load/{worker}"


def realm_of(address: str) -> str:
    """Return the realm of a worker process; empty if it is not on a node."""
    return address.rpartition("/")[0]


def node_of(realm: str) -> str:
    """Return the name of a realm's node."""
    return realm.rpartition(".")[0]


def alive_key(address: str) -> str:
    """Return the broker's key that exists as long as a worker process lives."""
    return f"assay:worker:{address}"


def presence_key(realm: str) -> str:
    """Return the sorted set with signs of life of a realm's workers."""
    return f"{_PRESENCE}:{realm}" if realm else _PRESENCE


def dropped_key(realm: str) -> str:
    """Return the sorted set with the numbers of messages that a realm's workers dropped."""
    return f"{_DROPPED}:{realm}" if realm else _DROPPED


def reply_stream(stream: str, realm: str) -> str:
    """Return the stream for replies of a realm's workers to requests that name `stream`."""
    return f"{_REPLIES}{realm}/{stream.removeprefix(_REPLIES)}" if realm else stream


def cancel_channel(realm: str) -> str:
    """Return the channel that tells a realm's workers about canceled requests."""
    return f"{CANCEL_CHANNEL}:{realm}" if realm else CANCEL_CHANNEL


def wake_message(workers: Collection[str]) -> str:
    """Return the message on `DEPLOYMENTS_CHANNEL` that wakes only these engine workers. The empty
    message wakes all of them."""
    return ",".join(workers) or _NO_WORKER


def wakes(message: str, worker: str) -> bool:
    """Return whether a message on `DEPLOYMENTS_CHANNEL` wakes a worker. On a node, workers do not
    know the prefix of their names."""
    return not message or any(
        name == worker or name.endswith(f"/{worker}") for name in message.split(",")
    )


def deployment_queue(deployment_id: int) -> str:
    """Return the Celery queue that all replicas of a deployment read."""
    return f"deployment.{deployment_id}"


def replica_queue(queue: str, address: str) -> str:
    """Return the queue of one replica, which only its worker process reads, in addition to the
    `queue` of the deployment. `address` is that of the process (`worker_address`), or its key."""
    return f"{queue}.{address.rpartition('/')[2][:_QUEUE_KEY]}"


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One validated request for one deployment.

    `inputs` and `options` come from the plan that its endpoint made, as JSON, such as
    {"messages": [...]} with {max_tokens, temperature, …}. `digest` is the manifest digest of the
    approved release; a worker with another loaded digest refuses the request. `scope` names the
    department that pays: engines share work only between its requests. `expires_at` and `deadline`
    are seconds since the epoch: the end of the release, and the time when the caller stops waiting.
    `units` is the expected use in the unit of the task; it is exact for recordings.
    `idle_s` is the longest pause between two tokens of a stream, 0 for no limit. `traceparent` is
    the gateway's span, empty without traces.
    """

    request_id: str
    deployment_id: int
    deployment: str
    digest: str
    reply_stream: str
    inputs: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    enqueued_at: float = 0.0
    deadline: float = 0.0
    expires_at: float = 0.0
    idle_s: float = 0.0
    units: int = 0
    scope: str = ""
    traceparent: str = ""

    def to_message(self) -> dict[str, Any]:
        """Return the fields by name; inputs and options are not copied."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> InferenceRequest:
        """Return the request of a message. Raises TypeError on unknown or missing fields."""
        return cls(**message)


@dataclass(frozen=True, slots=True)
class Delta:
    """Next piece of one choice; `tokens` is its number of tokens.

    `call` is a piece of a tool call: its number in the choice, its name, and the next piece of its
    arguments. `scores` are those of tokens that were not sent yet. `finish` ends one of several
    choices.
    """

    text: str
    tokens: int
    index: int = 0
    call: tuple[int, str, str] | None = None
    scores: list[TokenScore] | None = None
    finish: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """End of the answer. `finish_reason` is OpenAI's `stop` or `length`, or `canceled`.

    `results` is the whole answer of tasks that do not stream: the runner's result for each item,
    such as a list of floats or of {label, score}.
    `queue_ms` is the time between enqueueing and the start of computing, `prefill_ms` that from
    there to the first token, `decode_ms` that from the first token to the last; the latter two are
    0 for tasks that do not generate token by token. `connect_ms` is the time to connect to a
    provider; 0 if a connection was reused. `estimated` means that a provider stated no credible
    count, so at least one of the two is an estimate. `device_ms` is the request's share of device
    time, which is equal for requests that run at once. `units` is the usage in the unit of the
    task; if the unit is tokens, the two token counts are the usage.
    `stop` is the stop text that ended the answer, for requests whose options set `name_stop`.
    `cut_inputs` is the number of inputs that were truncated, as the options allow, by `cut_tokens`
    tokens in total.
    """

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    queue_ms: int = 0
    results: list[Any] | None = None
    device_ms: int = 0
    units: int = 0
    stop: str = ""
    cut_inputs: int = 0
    cut_tokens: int = 0
    prefill_ms: int = 0
    decode_ms: int = 0
    connect_ms: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """Refusal or failure. `status` is the HTTP status, `message` is for the caller.

    The counts are as in `Done`, if the caller is charged for the work until then.
    `retry_after_s` is the time until the provider accepts requests again; 0 if unknown.
    """

    code: str
    message: str
    status: int = 500
    prompt_tokens: int = 0
    completion_tokens: int = 0
    device_ms: int = 0
    units: int = 0
    estimated: bool = False
    retry_after_s: int = 0


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """A worker has begun the request, so its gateway knows whose death ends it.

    A request that was sealed for only one worker does not need this event.
    """


Event = RequestStarted | Delta | Done | Failed
_KINDS: dict[str, type[RequestStarted] | type[Delta] | type[Done] | type[Failed]] = {
    "taken": RequestStarted,
    "delta": Delta,
    "done": Done,
    "failed": Failed,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_REQUIRED = {
    kind: frozenset(each.name for each in fields(kind) if each.default is MISSING)
    for kind in _NAMES
}
# Longest phase of a request that is believed.
_DAY_MS = 86_400_000
# Counts in events, with the maximum that the ledger accepts for one request.
COUNTS = {
    "tokens": 100_000_000,
    "prompt_tokens": 100_000_000,
    "completion_tokens": 100_000_000,
    "device_ms": 3_600_000,
    "queue_ms": _DAY_MS,
    "prefill_ms": _DAY_MS,
    "decode_ms": _DAY_MS,
    "connect_ms": _DAY_MS,
    "units": 1_000_000_000,
    "cut_inputs": 100_000_000,
    "cut_tokens": 1_000_000_000,
    "retry_after_s": 86_400,
}


def encode_events(events: Sequence[Event]) -> bytes:
    """Return the events of one entry of a reply stream as a JSON list, each with its `type`.

    Raises ValueError if a text has a lone surrogate, or a result is not JSON.
    """
    return to_json([event_to_json(event) for event in events], inf_nan_mode="constants")


def decode_events(data: str | bytes) -> list[Event]:
    """Return the events of one entry, at least one.

    Counts must be whole numbers from 0, so that a compromised worker cannot give callers credit.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: `data` is not a list of events.
    """
    bodies = from_json(data, cache_strings="keys")
    if not isinstance(bodies, list) or not bodies:
        raise ValueError("it is not a list of events")
    return [event_from_json(body) for body in bodies]


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the event's type and fields, without empty fields that have a default."""
    kind = type(event)
    body = {"type": _NAMES[kind]}
    for name in event.__slots__:
        if (value := getattr(event, name)) or name in _REQUIRED[kind]:
            body[name] = value
    return body


def event_from_json(body: dict[str, Any]) -> Event:
    """Return an event, checked like those of `decode_events`; `body` is modified."""
    if body.get("type") == "delta":
        _check_delta(body)
    event = _KINDS[body.pop("type")](**body)
    if isinstance(event, Done) and not isinstance(event.stop, str):
        raise TypeError("a text is not a string")
    if not isinstance(getattr(event, "estimated", False), bool):
        raise TypeError("estimated is not a Boolean")
    for name, most in COUNTS.items():
        count = getattr(event, name, 0)
        if type(count) is not int or not 0 <= count <= most:
            raise ValueError(f"{name} is not a whole number from 0 to {most}")
    return event


def _check_delta(body: dict[str, Any]) -> None:
    """Check and convert the parts that renderers use. Raises ValueError or TypeError."""
    index = body.get("index", 0)
    if type(index) is not int or not 0 <= index < MAX_CHOICES:
        raise ValueError(f"index is not a whole number from 0 to {MAX_CHOICES - 1}")
    if not all(isinstance(body.get(name, ""), str) for name in ("text", "finish")):
        raise ValueError("a text is not a string")
    if (call := body.get("call")) is not None:
        number, name, arguments = call
        if type(number) is not int or not (isinstance(name, str) and isinstance(arguments, str)):
            raise ValueError("a tool call is not a number, a name and arguments")
        body["call"] = (number, name, arguments)
    if (scores := body.get("scores")) is not None:
        body["scores"] = [
            (_token(token), None if score is None else float(score), _pairs(likeliest))
            for token, score, likeliest in scores
        ]


def _pairs(pairs: Any) -> list[tuple[str, float]]:
    return [(_token(token), float(score)) for token, score in pairs]


def _token(token: Any) -> str:
    if not isinstance(token, str) or any(ord(each) > 255 for each in token):
        raise ValueError("a token is not bytes as Latin-1")
    return token


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Work of an engine. One answer of a generating engine is one row, one input of another engine.

    `running` rows are computed now and `waiting` ones are not begun. `steps` counts the steps since
    the engine was loaded, and `rows` the rows of all of these steps together. `cache` is the used
    share of the memory for keys and values, from 0 to 1; None if the engine has none.
    """

    running: int = 0
    waiting: int = 0
    steps: int = 0
    rows: int = 0
    cache: float | None = None
