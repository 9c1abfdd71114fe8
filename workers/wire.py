"""Messages between gateway and engine workers, as they are before they are sealed. Knows neither
Django nor torch.

A request travels as a Celery message on the queue of its deployment. Replies travel on one Redis
Stream per gateway process (`reply_stream`), so that a gateway reads all of its requests' replies
over one connection; nodes have streams and channels of their own. A request is canceled by a
notice on `CANCEL_CHANNEL`. `workers.sealing` makes and checks what is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from pydantic_core import from_json, to_json

from registry.catalog.endpoints import TokenScore
from registry.catalog.generation import MAX_CHOICES

INFERENCE_TASK = "workers.tasks.inference.run"
JOB_TASK = "workers.tasks.jobs.run"
JOB_QUEUE = "compute"
# Queue of engine workers that have no deployment yet; nothing is ever sent there.
IDLE_QUEUE = "engine.none"
CANCEL_CHANNEL = "assay:cancel"
SNAPSHOT_CHANNEL = (
    "assay:snapshot"  # published to when keys, policy, releases or deployments change
)
DEPLOYMENTS_CHANNEL = "assay:deployments"  # wakes engine workers and placement
CONTROLLER_CHANNEL = "assay:controller"  # wakes the controller: a job was queued or delivered
# A sorted set: IDs of deployments that requests found scaled to zero, by the moment.
WANTED_KEY = "assay:wanted"
# A sorted set: IDs of deployments that answer requests and may be scaled to zero, by the moment.
IN_USE_KEY = "assay:in-use"
REPLY_MAXLEN = 100_000
REPLY_TTL_S = 600
# A worker process that lives says so this often, for this long, under a key of its own.
ALIVE_EVERY_S = 1.0
ALIVE_FOR_MS = 5000


_REPLIES = "assay:reply:"
# A sorted set: names of workers by the moment of the last sign of life.
_PRESENCE = "assay:workers"
# A sorted set: names of workers by how many unknown messages they dropped.
_DROPPED = "assay:dropped"


def worker_address(realm: str, public_key: str) -> str:
    """Return the name of a worker process on the broker: its public key, after the realm of its
    node, if it has one.

    A realm is one enrollment of a node (`Node.realm`). The broker's user of a node may write only
    what has its realm in its name.
    """
    return f"{realm}/{public_key}" if realm else public_key


def realm_of(address: str) -> str:
    """Return the realm of a worker process; empty on the control plane's own machine."""
    return address.rpartition("/")[0]


def node_of(realm: str) -> str:
    """Return the name of a realm's node."""
    return realm.rpartition(".")[0]


def alive_key(address: str) -> str:
    """The key in the broker that is there as long as a worker process lives."""
    return f"assay:worker:{address}"


def presence_key(realm: str) -> str:
    """Return the sorted set in which workers of a realm say that they are there."""
    return f"{_PRESENCE}:{realm}" if realm else _PRESENCE


def dropped_key(realm: str) -> str:
    """Return the sorted set in which workers of a realm say how many messages they dropped."""
    return f"{_DROPPED}:{realm}" if realm else _DROPPED


def reply_stream(stream: str, realm: str) -> str:
    """Return where workers of a realm write the replies to requests that name `stream`."""
    return f"{_REPLIES}{realm}/{stream.removeprefix(_REPLIES)}" if realm else stream


def cancel_channel(realm: str) -> str:
    """Return the channel on which workers of a realm learn of canceled requests."""
    return f"{CANCEL_CHANNEL}:{realm}" if realm else CANCEL_CHANNEL


def deployment_queue(deployment_id: int) -> str:
    """The Celery queue that every replica of a deployment reads."""
    return f"deployment.{deployment_id}"


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One validated request for one deployment.

    `inputs` and `options` are those of the plan that its endpoint made, as JSON, such as
    {"messages": [...]} with {max_tokens, temperature, …}. `digest` is the manifest digest that the
    approved release names; a worker whose loaded digest differs refuses.
    `scope` names the department that pays: engines share work between its requests alone.
    `expires_at` and `deadline` are seconds since the epoch: the release's end, and the moment at
    which the caller stops waiting. `traceparent` is the gateway's span, empty without traces.
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
    scope: str = ""
    traceparent: str = ""

    def to_message(self) -> dict[str, Any]:
        """Return the fields by name; inputs and options are the request's own, not copies."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> InferenceRequest:
        """Raises TypeError on unknown or missing fields."""
        return cls(**message)


@dataclass(frozen=True, slots=True)
class Delta:
    """More of one choice; `tokens` is how many tokens it stands for.

    `call` is a piece of a tool call: its number in the choice, its name, and more of its arguments.
    `scores` are those of the tokens so far unsent. `finish` ends one of several choices.
    """

    text: str
    tokens: int
    index: int = 0
    call: tuple[int, str, str] | None = None
    scores: list[TokenScore] | None = None
    finish: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The end. `finish_reason` is OpenAI's `stop` or `length`, or `canceled`.

    `results` carries the whole answer of tasks that do not stream: what the task's runner returned
    for each of its items, such as a list of floats or of {label, score}.
    `queue_ms` is the time between enqueueing and the start of computing, `device_ms` the request's
    share of the device's time: of what runs at once each takes an equal part. `units` is how much
    was used in the unit of the task; where that is tokens, the two counts of tokens say it.
    `stop` is the stop text that ended the answer, for requests whose options set `name_stop`.
    `cut_inputs` of the request's inputs lost `cut_tokens` that the model cannot read, as its
    options say.
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


@dataclass(frozen=True, slots=True)
class Failed:
    """Refused or broken: `status` is the HTTP status that fits, `message` is for the caller.

    The counts are those of `Done`, where the caller is charged for the work until then.
    """

    code: str
    message: str
    status: int = 500
    prompt_tokens: int = 0
    completion_tokens: int = 0
    device_ms: int = 0
    units: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """A worker has begun with the request. Its gateway knows now whose death ends it.

    A request that was sealed for one worker only needs none.
    """


Event = Taken | Delta | Done | Failed
_KINDS: dict[str, type[Taken] | type[Delta] | type[Done] | type[Failed]] = {
    "taken": Taken,
    "delta": Delta,
    "done": Done,
    "failed": Failed,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_REQUIRED = {
    kind: frozenset(each.name for each in fields(kind) if each.default is MISSING)
    for kind in _NAMES
}
# Counts in events, and the most of each: the ledger takes no more in one request.
COUNTS = {
    "tokens": 100_000_000,
    "prompt_tokens": 100_000_000,
    "completion_tokens": 100_000_000,
    "device_ms": 3_600_000,
    "units": 1_000_000_000,
    "cut_inputs": 100_000_000,
    "cut_tokens": 1_000_000_000,
}


def encode_events(events: Sequence[Event]) -> bytes:
    """Return the events of one entry of a reply stream as a JSON list, each with its `type`.

    Raises ValueError: a text has a lone surrogate, or a result is not JSON.
    """
    return to_json([event_to_json(event) for event in events], inf_nan_mode="constants")


def decode_events(data: str | bytes) -> list[Event]:
    """Return the events of one entry, at least one.

    What is charged must be a whole number from 0: a compromised worker gives its callers no credit.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: `data` is not a list of events.
    """
    bodies = from_json(data, cache_strings="keys")
    if not isinstance(bodies, list) or not bodies:
        raise ValueError("it is not a list of events")
    return [event_from_json(body) for body in bodies]


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the event's type and its fields, without those that are empty and have a default."""
    kind = type(event)
    body = {"type": _NAMES[kind]}
    for name in event.__slots__:
        if (value := getattr(event, name)) or name in _REQUIRED[kind]:
            body[name] = value
    return body


def event_from_json(body: dict[str, Any]) -> Event:
    """Return an event, checked as by `decode_events`; `body` is used up."""
    if body.get("type") == "delta":
        _check_delta(body)
    event = _KINDS[body.pop("type")](**body)
    if isinstance(event, Done) and not isinstance(event.stop, str):
        raise TypeError("stop is not a string")
    for name, most in COUNTS.items():
        count = getattr(event, name, 0)
        if type(count) is not int or not 0 <= count <= most:
            raise ValueError(f"{name} is not a whole number from 0 to {most}")
    return event


def _check_delta(body: dict[str, Any]) -> None:
    """Check and convert the parts that a renderer takes apart. Raises ValueError or TypeError."""
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
