"""POST /v1/responses for text, as OpenAI's client reads it. Nothing is stored.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from registry.catalog.endpoints import Answer, Plan, dumps
from registry.catalog.generation import (
    MAX_TOKENS,
    ChatMessage,
    GenerationInputs,
    SamplingOptions,
    Variables,
)
from registry.catalog.requests import (
    Body,
    Name,
    RequestInvalid,
    Strict,
    Text,
    User,
    estimate_tokens,
    one_or_many,
    parse,
)
from tasks.text_generation.endpoints import stated

DEFAULT_TOKENS = 512


class InputText(Strict):
    """A part of a message: text of the caller, or an earlier answer's."""

    type: Literal["input_text", "output_text"]
    text: Text
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Annotated[list[Any], Field(max_length=0)] | None = None


Content = Annotated[
    Annotated[str, Field(max_length=1_000_000), Tag("one")]
    | Annotated[list[InputText], Field(min_length=1, max_length=256), Tag("many")],
    Discriminator(one_or_many),
]


class InputMessage(Strict):
    """One turn. An answer can be sent back as it came, with its `id` and `status`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    type: Literal["message"] | None = None
    id: Name | None = None
    status: Literal["completed", "incomplete"] | None = None
    phase: None = None

    def plain(self) -> ChatMessage:
        """Return role and text, as an engine takes them."""
        if isinstance(self.content, str):
            text = self.content
        else:
            text = "\n".join(part.text for part in self.content)
        return ChatMessage(role="system" if self.role == "developer" else self.role, content=text)


Input = Annotated[
    Annotated[Text, Tag("one")]
    | Annotated[list[InputMessage], Field(min_length=1, max_length=512), Tag("many")],
    Discriminator(one_or_many),
]


class TextFormat(Strict):
    """The only format of the answer."""

    type: Literal["text"]


class TextSettings(Strict):
    """Settings of the answer's text."""

    format: TextFormat | None = None
    verbosity: None = None


class PromptReference(Strict):
    """Values for the prompt of the deployment, whose name `id` is."""

    id: Name | None = None
    variables: Variables | None = None
    version: None = None


class ResponsesRequest(Strict):
    """POST /v1/responses. `instructions` come first, as a system message."""

    model: Name
    input: Input
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    stream: bool | None = None
    text: TextSettings | None = None
    user: User | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["disabled"] | None = None
    top_logprobs: Literal[0] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    include: Annotated[list[Any], Field(max_length=0)] | None = None
    conversation: None = None
    max_tool_calls: None = None
    previous_response_id: None = None
    prompt: PromptReference | None = None
    prompt_cache_key: None = None
    reasoning: None = None
    safety_identifier: None = None
    service_tier: None = None
    stream_options: None = None


def read_responses(body: Body, request_id: str, name: str) -> Plan:
    """Read POST /v1/responses. Raises RequestInvalid."""
    request = parse(ResponsesRequest, body.data)
    if isinstance(request.input, str):
        messages = [ChatMessage(role="user", content=request.input)]
    else:
        messages = [message.plain() for message in request.input]
    if request.instructions is not None:
        messages.insert(0, ChatMessage(role="system", content=request.instructions))
    prompt = request.prompt or PromptReference()
    if prompt.id not in (None, request.model):
        raise RequestInvalid(
            "prompt.id must be the model: a prompt is served under its deployment's name.",
            param="prompt.id",
        )
    prompt_tokens = estimate_tokens([message.text for message in messages])
    limit = request.max_output_tokens or DEFAULT_TOKENS
    options = SamplingOptions(
        max_tokens=limit,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        stated=stated(
            max_tokens=request.max_output_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
        ),
    )
    return Plan(
        model=request.model,
        inputs=GenerationInputs(messages=messages, variables=prompt.variables),
        options=options,
        stream=bool(request.stream),
        renderer=ResponsesRenderer(
            id=f"resp_{request_id[4:]}",
            message_id=f"msg_{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            instructions=request.instructions,
            metadata=request.metadata or {},
            limit=request.max_output_tokens,
            options=options,
        ),
        tokens=prompt_tokens + limit,
        prompt_tokens=prompt_tokens,
    )


@dataclass(slots=True)
class ResponsesRenderer:
    """One message as output, whole and as server-sent events."""

    id: str
    message_id: str
    model: str
    created: int
    instructions: str | None
    metadata: dict[str, str]
    limit: int | None
    options: SamplingOptions
    _number: int = 0
    _parts: list[str] = field(default_factory=list)

    def whole(self, answer: Answer) -> dict[str, Any]:
        return self._response(answer, answer.text)

    def opening(self) -> str:
        """Announce the response, its message, and the message's one part."""
        begun = self._response(None, "")
        return (
            self._event("response.created", response=begun)
            + self._event("response.in_progress", response=begun)
            + self._event(
                "response.output_item.added",
                output_index=0,
                item=self._message("in_progress", None),
            )
            + self._event("response.content_part.added", **self._place(), part=_part(""))
        )

    def delta(self, text: str) -> str:
        self._parts.append(text)
        return self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def closing(self, answer: Answer) -> str:
        """Repeat the whole text, and end."""
        text = "".join(self._parts)
        response = self._response(answer, text)
        (message,) = response["output"]
        return (
            self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
            + self._event("response.content_part.done", **self._place(), part=_part(text))
            + self._event("response.output_item.done", output_index=0, item=message)
            + self._event(f"response.{response['status']}", response=response)
        )

    def _response(self, answer: Answer | None, text: str) -> dict[str, Any]:
        cut = answer is not None and answer.finish_reason == "length"
        status = "in_progress" if answer is None else "incomplete" if cut else "completed"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": self.instructions,
            "max_output_tokens": self.limit,
            "metadata": self.metadata,
            "model": self.model,
            "output": [] if answer is None else [self._message(status, text)],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "temperature": self.options.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": self.options.top_p,
            "truncation": "disabled",
            "usage": None if answer is None else _usage(answer),
        }

    def _message(self, status: str, text: str | None) -> dict[str, Any]:
        return {
            "id": self.message_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [] if text is None else [_part(text)],
        }

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.message_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **content: Any) -> str:
        event = {"type": kind, "sequence_number": self._number, **content}
        self._number += 1
        return f"event: {kind}\ndata: {dumps(event)}\n\n"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }
