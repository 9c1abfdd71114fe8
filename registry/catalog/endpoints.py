"""Endpoints of a task: from a request's body to an engine's inputs, and from answer to response.

Loads neither Django nor torch. The gateway calls `Endpoint.read` before any decision, stores the
media of the `Plan`, and calls the plan's renderer with the engine's `Answer`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from registry.catalog.conversations import Conversation
from registry.catalog.grounding import Grounding
from registry.catalog.inputs import Inputs, NoOptions, Options
from registry.catalog.requests import Body, invalid

# Paths below these belong to the gateway. /v2 is Cohere's; all other APIs use /v1.
INFERENCE_PATHS = ("/v1/", "/v2/")
# Paths of other APIs that are refused, with what to use instead.
REFUSED_PATHS = {
    "/v1/images/edits": "Images are generated, not edited; use POST /v1/images/generations.",
    "/v1/images/variations": "Images are generated, not varied; use POST /v1/images/generations.",
    "/v1/messages/batches": "Use POST /v1/batches with the endpoint /v1/messages.",
}


def dumps(value: Any) -> str:
    """Return compact JSON. A lone surrogate becomes a question mark when it is encoded as UTF-8."""
    try:
        return to_json(value, inf_nan_mode="constants").decode()
    except (PydanticSerializationError, UnicodeError):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class MediaResult:
    """Bytes of one media file in `Answer.results`, from a runner's `MediaOutput`."""

    data: bytes
    content_type: str
    details: Mapping[str, Any] = field(default_factory=dict)


# A token: its bytes as Latin-1, the natural logarithm of its probability, and the likeliest tokens
# in its place, as pairs. The first token of a prompt has no probability.
TokenScore = tuple[str, float | None, list[tuple[str, float]]]


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of one choice of a generated answer.

    `call` is a piece of a tool call: its number in the choice, its name in the first piece, and the
    next part of its arguments. `finish` is the finish reason of one of several choices.
    """

    text: str
    index: int = 0
    call: tuple[int, str, str] | None = None
    scores: list[TokenScore] | None = None
    finish: str = ""


@dataclass(slots=True)
class Choice:
    """One growing choice. `calls` maps a tool call's number to its name and arguments."""

    index: int = 0
    text: str = ""
    finish_reason: str = ""
    calls: dict[int, tuple[str, str]] = field(default_factory=dict)
    scores: list[TokenScore] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Append a piece of this choice."""
        self.text += piece.text
        self.scores += piece.scores or []
        self.finish_reason = piece.finish or self.finish_reason
        if piece.call is not None:
            number, name, arguments = piece.call
            before = self.calls.get(number, ("", ""))
            self.calls[number] = (before[0] + name, before[1] + arguments)


@dataclass(frozen=True, slots=True)
class Answer:
    """The engine's whole answer. `choices` are the generated answers; `results` are the results of
    a batch runner, one entry for each item. `units` counts in the unit of the task. `stop` is the
    stop text that ended the only choice, if the options request it. `cut_tokens` were cut off from
    `cut_inputs` inputs, as the options allow."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    choices: list[Choice] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    units: int = 0
    stop: str = ""
    cut_inputs: int = 0
    cut_tokens: int = 0

    @property
    def text(self) -> str:
        """Return the text of the first choice."""
        return self.choices[0].text if self.choices else ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A response body that is not JSON."""

    body: bytes
    content_type: str


class Renderer(Protocol):
    """Renderer of an answer in the endpoint's format."""

    def whole(self, answer: Answer) -> dict[str, Any] | list[Any] | Rendered:
        """Return the response in one piece.

        Raises:
            RequestInvalid: the request does not fit the computed answer.
        """


class StreamRenderer(Renderer, Protocol):
    """Renderer that can also send an answer as server-sent events."""

    def opening(self) -> str:
        """Return the first event, or an empty text."""

    def delta(self, piece: Piece) -> str:
        """Return the event for a piece."""

    def closing(self, answer: Answer) -> str:
        """Return the last events."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One validated request.

    `tokens` and `units` are reserved from quotas: an estimate of the prompt plus the limit of the
    answer, and the maximum cost of the request in the task's unit. `units` 0 stands for `tokens`.
    With `grounding`, this is the plan of the request before its passages are found. `counts_only`:
    the request generates no answer, so that no tokens are charged. With `conversation`, this is the
    plan of the request alone, not stored and without the earlier items. `user` is the ID of the end
    user whom the caller names, if any.
    """

    model: str
    inputs: Inputs
    renderer: Renderer
    tokens: int
    prompt_tokens: int
    units: int = 0
    options: Options = field(default_factory=NoOptions)
    stream: bool = False
    grounding: Grounding[Plan] | None = None
    counts_only: bool = False
    conversation: Conversation[Plan] | None = None
    user: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path, and the function that reads its bodies.

    `read(body, request_id, name)` returns the plan, or raises RequestInvalid or pydantic's
    ValidationError. If `named`, `name` is the last segment of the path: the deployment, for clients
    that put it into the URL. Several tasks may declare the same path unless it is `named`.
    `request` is the schema of a JSON body or form, and `summary` one sentence for people; both
    appear in the API's description.
    `content_types` are the accepted types; `image/*` stands for every image type. `takes_media`
    allows bodies up to the limit of media files.
    """

    path: str
    read: Callable[[Body, str, str], Plan]
    named: bool = False
    content_types: tuple[str, ...] = ("application/json",)
    takes_media: bool = False
    request: type[BaseModel] | None = None
    summary: str = ""

    def plan(self, body: Body, request_id: str, name: str) -> Plan:
        """Return the plan of a request. Raises RequestInvalid."""
        try:
            return self.read(body, request_id, name)
        except ValidationError as error:
            raise invalid(error) from None

    def path_to(self, deployment: str) -> str:
        """Return the path that reaches a deployment."""
        return f"{self.path}/{deployment}" if self.named else self.path
