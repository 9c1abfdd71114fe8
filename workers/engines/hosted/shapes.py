"""Parts that all wire shapes share: checks of settings, and the state of an answer."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from registry.catalog.endpoints import TokenScore
from registry.catalog.generation import MAX_CALLS, ChatMessage, GenerationInputs, SamplingOptions
from registry.catalog.hosted import FINGERPRINT_MAX, STATED_MODEL_MAX, HostedDescription
from registry.catalog.inputs import Inputs, Options
from workers.engines.protocol import RequestRefused
from workers.wire import Delta

# Maximum size in bytes of one request, with images in base64.
MAX_BODY = 64 * 1024 * 1024
# Maximum size in bytes of one answer, unless its call states fewer.
MAX_ANSWER = 64 * 1024 * 1024
_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_IMAGE = 1_000
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a provider: path below the base URL, body, and headers of its shape."""

    path: str
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    # Several choices have separate ends.
    choices: int = 1
    stream: bool = False
    # In place of `body`, for requests that are not JSON.
    content: bytes = b""
    # Media types that a whole answer may have; empty for any.
    accepts: frozenset[str] = frozenset()
    # Maximum size in bytes of the answer.
    most: int = MAX_ANSWER

    def encoded(self) -> bytes:
        """Return the bytes of the request. Raises RequestRefused if they are too many."""
        return bounded(self.content) if self.content else encode(self.body)


class Reader(Protocol):
    """Reads the answer to one call; `state` has the model, usage and finish reasons."""

    state: State

    def event(self, data: bytes) -> list[Delta]:
        """Return the pieces in the data of one event. Raises ProviderFailed."""

    def whole(self, body: bytes) -> list[Delta]:
        """Return the pieces of an answer that was not streamed. Raises ProviderFailed."""


class Shape(Protocol):
    """The wire shape of a family of providers: a module with pure functions."""

    def call(
        self, description: HostedDescription, inputs: Inputs, options: Options, *, stream: bool
    ) -> Call:
        """Return the call for a typed request.

        Raises:
            RequestRefused: a setting is not permitted, or the shape cannot express it.
        """

    def reader(self, description: HostedDescription, call: Call) -> Reader:
        """Return a reader for the answer to a call."""


@dataclass(slots=True)
class State:
    """State of an answer that is being read.

    Attributes:
        choices: Number of requested choices.
        most_tokens: Highest credible count of tokens.
        complete: All choices have ended.
        ended: The last event arrived; nothing follows.
        finish: Finish reason of each choice that ended.
        prompt_tokens, completion_tokens: Usage that the provider states; None without a credible
            count.
        model, fingerprint: Names in the answer; empty if it has none.
        results: Results of tasks that do not generate text, such as vectors.
        stop: The stop text that ended the answer, if the provider names it.
        units: Use in the unit of the task; None if that is tokens.
    """

    choices: int = 1
    most_tokens: int = 100_000_000
    complete: bool = False
    ended: bool = False
    finish: dict[int, str] = field(default_factory=dict)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str = ""
    fingerprint: str = ""
    results: list[Any] | None = None
    stop: str = ""
    units: int | None = None
    characters: int = 0
    _counted: int = 0
    _calls: dict[int, dict[Any, tuple[int, Any]]] = field(default_factory=dict)

    @property
    def estimated_tokens(self) -> int:
        """Return an estimate of the tokens of all pieces so far."""
        return -(-self.characters // _CHARACTERS_PER_TOKEN)

    def text(self, index: int, text: str, scores: list[TokenScore] | None = None) -> Delta:
        """Return a piece of text of one choice."""
        if not isinstance(text, str):
            raise TypeError("a text is not a string")
        return Delta(text, self._count(text), self._index(index), None, scores)

    def tool(self, index: int, place: Any, id_: Any, name: str, arguments: str) -> Delta:
        """Return a piece of a tool call.

        `place` is the call's place as the provider counts, and `id_` its ID. Some providers use a
        place again for another ID, or an ID again at another place; both begin another call.
        """
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise TypeError("a tool call has no name or arguments")
        calls = self._calls.setdefault(self._index(index), {})
        known = calls.get(place)
        if known is None or (id_ and known[1] and id_ != known[1]):
            number = 1 + max((each for each, _ in calls.values()), default=-1)
            if number >= MAX_CALLS:
                raise ValueError(f"an answer has more than {MAX_CALLS} tool calls")
            calls[place] = known = (number, id_)
        else:
            name = ""  # Stated by the first piece; some providers repeat it.
        return Delta("", self._count(name + arguments), index, (known[0], name, arguments))

    def end(self, index: int, reason: str) -> list[Delta]:
        """Record the end of a choice; return its event if there are several."""
        if reason == "stop" and self._calls.get(index):
            reason = "tool_calls"
        self.finish[self._index(index)] = reason
        return [Delta("", 0, index, finish=reason)] if self.choices > 1 else []

    def usage(self, prompt: Any, completion: Any) -> None:
        """Record the stated usage; ignore counts that are not credible."""
        if self._credible(prompt):
            self.prompt_tokens = prompt
        if self._credible(completion):
            self.completion_tokens = completion

    def _credible(self, count: Any) -> bool:
        return type(count) is int and 0 <= count <= self.most_tokens

    def names(self, model: Any, fingerprint: Any = None) -> None:
        """Record the model and fingerprint that an event states."""
        if isinstance(model, str) and model:
            self.model = model[:STATED_MODEL_MAX]
        if isinstance(fingerprint, str) and fingerprint:
            self.fingerprint = fingerprint[:FINGERPRINT_MAX]

    def _index(self, index: Any) -> int:
        if type(index) is not int or not 0 <= index < self.choices:
            raise ValueError("an event belongs to a choice that was not requested")
        return index

    def _count(self, text: str) -> int:
        self.characters += len(text)
        before, self._counted = self._counted, self.estimated_tokens
        return self._counted - before


def parse(data: bytes, *, exact: bool = False) -> dict[str, Any]:
    """Return the JSON object in `data`. With `exact`, whole numbers of any size keep their value.

    Raises:
        ValueError: `data` is not a JSON object.
    """
    # orjson is four times as fast, but makes whole numbers beyond 64 bits inexact.
    value = json.loads(data, parse_constant=_no_constant) if exact else orjson.loads(data)
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    return value


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON. Raises RequestRefused if it is too large."""
    try:
        data = orjson.dumps(body)
    except TypeError:
        # A whole number beyond 64 bits, or a lone surrogate.
        data = json.dumps(body).encode()
    return bounded(data)


def bounded(data: bytes) -> bytes:
    """Return the bytes of a request. Raises RequestRefused if they are too many."""
    if len(data) > MAX_BODY:
        raise RequestRefused(
            f"The request has {len(data):,} bytes; at most {MAX_BODY:,} are sent to a provider.",
            code="request_too_large",
            status=413,
        )
    return data


def finite(value: Any) -> float:
    """Return a number of an answer. Raises ValueError if it is not a finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("a value is not a number")
    return float(value)


def exact_json(value: Any) -> str:
    """Return a tool call's arguments as JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _no_constant(name: str) -> Any:
    raise ValueError(f"it has {name}")


def generation(inputs: Inputs, options: Options) -> tuple[GenerationInputs, SamplingOptions]:
    """Return a conversation and its settings. Raises RequestRefused for other inputs."""
    if not isinstance(inputs, GenerationInputs) or not isinstance(options, SamplingOptions):
        raise RequestRefused("This operation of the provider only answers conversations.")
    if inputs.messages is None:
        raise refused("suffix" if inputs.suffix else "prompt", "send messages")
    return inputs, options


def refused(name: str, fix: str = "leave it out") -> RequestRefused:
    """Return the refusal of a setting that the wire shape cannot express."""
    return RequestRefused(
        f"The provider of this model cannot honor {name}; {fix}.", code="unsupported_parameter"
    )


def used_settings(
    description: HostedDescription,
    inputs: GenerationInputs,
    options: SamplingOptions,
    supported: Iterable[str],
) -> dict[str, Any]:
    """Return the settings of a request to send to the provider, by name.

    `supported` are the settings that the wire shape can express. A setting with its default value
    is sent only if the caller states it and the description permits it.

    Raises:
        RequestRefused: the description does not permit a setting, or the shape cannot express it.
    """
    values: dict[str, Any] = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "stop": options.stop,
        "seed": options.seed,
        "choices": options.choices,
        "logprobs": options.logprobs,
        "logit_bias": options.logit_bias,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "json_schema": options.json_schema,
        "tools": inputs.tools,
        "images": inputs.images,
    }
    permitted, able = set(description.parameters), set(supported)
    used: dict[str, Any] = {}
    for name, value in values.items():
        if value in (None, [], {}) or value == _DEFAULTS.get(name):
            if name in options.stated and name in permitted and name in able:
                used[name] = value
            continue
        check_permitted(description, name)
        if name not in able:
            raise refused(name)
        used[name] = value
    for name, value in (
        ("best_of", options.best_of not in (None, options.choices)),
        ("echo", options.echo),
        ("reference", options.reference is not None),
    ):
        if value:
            raise refused(name)
    return used


def task_settings(
    description: HostedDescription,
    inputs: Inputs,
    options: Options,
    *,
    content: Collection[str],
) -> dict[str, Any]:
    """Return the settings of a request without messages that differ from their defaults, by name.

    `content` names the fields that the call handles itself.

    Raises:
        RequestRefused: the operation has no such setting, or the description does not permit it.
    """
    used: dict[str, Any] = {}
    for part in (inputs, options):
        for name, field_info in type(part).model_fields.items():
            value = getattr(part, name)
            if name in content or value == field_info.get_default(call_default_factory=True):
                continue
            if name not in description.rules.parameters:
                raise refused(*_CALLERS.get(name, (name,)))
            check_permitted(description, name)
            used[name] = value
    return used


def check_permitted(description: HostedDescription, name: str) -> None:
    """Raise RequestRefused if the description does not permit a setting."""
    if name not in description.parameters:
        setting, fix = _CALLERS.get(name, (name, "leave it out"))
        raise RequestRefused(
            f"The approved description of this model does not permit {setting}; {fix}.",
            code="unsupported_parameter",
        )


# Settings that callers know by other names, and the way to do without them.
_CALLERS = {"segments": ("times of segments", "use response_format json or text")}
_DEFAULTS = {
    "temperature": 1.0,
    "top_p": 1.0,
    "choices": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


def token_limit(description: HostedDescription, options: SamplingOptions) -> int | None:
    """Return the limit on the answer's tokens to send; None if the description permits none.

    Raises:
        RequestRefused: the caller states a limit that is not permitted or cannot be kept.
    """
    limit, stated = options.max_tokens, "max_tokens" in options.stated
    if limit == 0:
        raise refused("max_tokens: 0", "request at least one token")
    if not {"max_tokens", "max_completion_tokens"} & set(description.parameters):
        if stated:
            check_permitted(description, "max_tokens")
        return None
    if stated and limit is not None and limit > description.max_tokens:
        raise RequestRefused(
            f"max_tokens is {limit}; this model answers with at most {description.max_tokens} "
            "tokens.",
            code="max_tokens_too_large",
        )
    return min(limit or description.max_tokens, description.max_tokens)


def image_data(image: Any) -> tuple[str, str]:
    """Return the content type of an image, and its bytes in base64."""
    data = media_bytes(image)
    content_type = next((name for head, name in _IMAGES if data.startswith(head)), "image/webp")
    return content_type, base64.b64encode(data).decode()


def media_bytes(file: Any) -> bytes:
    """Return the bytes of a path or stream, from its beginning: another target may have read it."""
    if hasattr(file, "read_bytes"):
        return bytes(file.read_bytes())
    file.seek(0)
    return bytes(file.read())


def system_and_turns(messages: Sequence[ChatMessage]) -> tuple[str, list[ChatMessage]]:
    """Return the system prompt at the beginning of a conversation, and its other turns.

    Raises:
        RequestRefused: a system message is not at the beginning, or a role is unknown.
    """
    system: list[str] = []
    turns: list[ChatMessage] = []
    for message in messages:
        if message.role in ("system", "developer"):
            if turns:
                raise refused("a system message after the first turn", "put system messages first")
            system.append(message.text)
        elif message.role in ("user", "assistant", "tool"):
            turns.append(message)
        else:
            raise refused(f"the role {message.role!r}", "use system, user, assistant or tool")
    return "\n\n".join(system), turns


def estimate_prompt(inputs: Inputs) -> int:
    """Return an estimate of a request's tokens, for answers without stated usage."""
    if isinstance(inputs, GenerationInputs):
        texts = [message.text for message in inputs.messages or ()]
        texts += [
            call.name + str(call.arguments)
            for message in inputs.messages or ()
            for call in message.tool_calls
        ]
        texts += [tool.name + tool.description + str(tool.parameters) for tool in inputs.tools]
        images = len(inputs.images)
    else:
        texts, images = list(getattr(inputs, "input", ())), 0
    characters = sum(map(len, texts))
    return -(-characters // _CHARACTERS_PER_TOKEN) + images * _TOKENS_PER_IMAGE
