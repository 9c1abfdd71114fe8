"""POST /v1/chat/completions and /v1/completions, byte for byte as OpenAI's client reads them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from registry.catalog.grounding import (
    DEFAULT_PASSAGES,
    MAX_PASSAGES,
    Grounding,
    Passage,
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

DEFAULT_CHAT_TOKENS = 512
DEFAULT_COMPLETION_TOKENS = 16
# A longer question is searched for by its beginning.
QUERY_CHARACTERS = 4_000

StopText = Annotated[str, Field(min_length=1, max_length=200)]
TokenCount = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Zero = Annotated[float, Field(ge=0, le=0, allow_inf_nan=False)]
Stop = Annotated[
    Annotated[StopText, Tag("one")]
    | Annotated[list[StopText], Field(min_length=1, max_length=4), Tag("many")],
    Discriminator(one_or_many),
]


class TextPart(Strict):
    """A part of a message; text is the only kind."""

    type: Literal["text"]
    text: Text


Content = Annotated[
    Annotated[str, Field(max_length=1_000_000), Tag("one")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=256), Tag("many")],
    Discriminator(one_or_many),
]


class Message(Strict):
    """One turn. `developer` is read as `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Name | None = None
    # Fields of the client's own answer, when it is sent back as history.
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None

    def plain(self) -> ChatMessage:
        """Role and text, as an engine takes them."""
        if isinstance(self.content, str):
            text = self.content
        else:
            text = "\n".join(part.text for part in self.content)
        role = "system" if self.role == "developer" else self.role
        return ChatMessage(role=role, content=text)


def stated(**settings: Any) -> list[Any]:
    """Return the names of the settings that a request gives."""
    return [name for name, value in settings.items() if value is not None]


class StreamOptions(Strict):
    """Content of a stream besides the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class PlainText(Strict):
    """The only response format."""

    type: Literal["text"]


class _Generation(Strict):
    model: Name
    max_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    user: User | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: None = None

    def options(self, max_tokens: int) -> SamplingOptions:
        """Return the settings as an engine takes them."""
        return SamplingOptions(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=[self.stop] if isinstance(self.stop, str) else list(self.stop or ()),
            seed=self.seed,
            stated=stated(
                max_tokens=self.stated_limit,
                temperature=self.temperature,
                top_p=self.top_p,
                stop=self.stop,
            ),
        )

    @property
    def stated_limit(self) -> int | None:
        """Return the limit on the answer that the caller chose."""
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(_Generation):
    """POST /v1/chat/completions. `prompt_variables` fill in the prompt of a prompt version."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=512)]
    prompt_variables: Variables | None = None
    max_completion_tokens: TokenCount | None = None
    response_format: PlainText | None = None
    logprobs: Literal[False] | None = None
    store: Literal[False] | None = None
    top_logprobs: None = None
    tools: None = None
    tool_choice: None = None
    parallel_tool_calls: None = None
    functions: None = None
    function_call: None = None
    audio: None = None
    modalities: None = None
    prediction: None = None
    metadata: None = None
    reasoning_effort: None = None
    service_tier: None = None
    verbosity: None = None
    web_search_options: None = None
    # Assay's own: answer from the passages of a knowledge base, with citations.
    knowledge_base: Name | None = None
    max_passages: Annotated[int, Field(ge=1, le=MAX_PASSAGES)] | None = None

    @property
    def stated_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def token_limit(self) -> int:
        return self.stated_limit or DEFAULT_CHAT_TOKENS


class CompletionRequest(_Generation):
    """POST /v1/completions."""

    prompt: Text
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    suffix: Text | None = None

    @property
    def token_limit(self) -> int:
        return self.max_tokens or DEFAULT_COMPLETION_TOKENS


def read_chat(body: Body, request_id: str, name: str) -> Plan:
    """Read POST /v1/chat/completions. Raises RequestInvalid."""
    request = parse(ChatRequest, body.data)
    messages = [message.plain() for message in request.messages]
    if request.knowledge_base is None:
        if request.max_passages is not None:
            raise RequestInvalid("max_passages goes with knowledge_base.", param="max_passages")
        return _chat_plan(request, request_id, messages)
    asked = [message.text for message in messages if message.role == "user"]
    if not asked or not asked[-1].strip():
        raise RequestInvalid(
            "With knowledge_base, messages must hold a question of the role user.",
            param="messages",
        )

    def plan_with(passages: Sequence[Passage]) -> Plan:
        # Imported late: it builds on this module.
        from tasks.text_generation.grounded import GroundedRenderer, grounded_messages

        plan = _chat_plan(request, request_id, grounded_messages(messages, passages))
        renderer = GroundedRenderer(
            id=f"chatcmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            chat=True,
            include_usage=request.include_usage,
            knowledge_base=request.knowledge_base or "",
            passages=passages,
        )
        return replace(plan, renderer=renderer)

    grounding = Grounding(
        knowledge_base=request.knowledge_base,
        query=asked[-1][:QUERY_CHARACTERS],
        most=request.max_passages or DEFAULT_PASSAGES,
        plan_with=plan_with,
    )
    return replace(_chat_plan(request, request_id, messages), grounding=grounding)


def _chat_plan(request: ChatRequest, request_id: str, messages: list[ChatMessage]) -> Plan:
    prompt_tokens = estimate_tokens([message.text for message in messages])
    return Plan(
        model=request.model,
        inputs=GenerationInputs(messages=messages, variables=request.prompt_variables),
        options=request.options(request.token_limit),
        stream=bool(request.stream),
        renderer=GenerationRenderer(
            id=f"chatcmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            chat=True,
            include_usage=request.include_usage,
        ),
        tokens=prompt_tokens + request.token_limit,
        prompt_tokens=prompt_tokens,
    )


def read_completion(body: Body, request_id: str, name: str) -> Plan:
    """Read POST /v1/completions. Raises RequestInvalid."""
    request = parse(CompletionRequest, body.data)
    suffix = request.suffix or None
    prompt_tokens = estimate_tokens([request.prompt, suffix or ""])
    return Plan(
        model=request.model,
        inputs=GenerationInputs(prompt=request.prompt, suffix=suffix),
        options=request.options(request.token_limit),
        stream=bool(request.stream),
        renderer=GenerationRenderer(
            id=f"cmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            chat=False,
            include_usage=request.include_usage,
        ),
        tokens=prompt_tokens + request.token_limit,
        prompt_tokens=prompt_tokens,
    )


def usage(answer: Answer) -> dict[str, int]:
    """Return the token counts of one answer."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


@dataclass(slots=True)
class GenerationRenderer:
    """Chat and plain completions, whole and as server-sent events."""

    id: str
    model: str
    created: int
    chat: bool
    include_usage: bool = False

    def whole(self, answer: Answer) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": answer.finish_reason,
            "logprobs": None,
        }
        if self.chat:
            choice["message"] = {
                "role": "assistant",
                "content": answer.text,
                "refusal": None,
                "annotations": [],
            }
        else:
            choice["text"] = answer.text
        return {
            "id": self.id,
            "object": "chat.completion" if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": usage(answer),
            "system_fingerprint": None,
        }

    def opening(self) -> str:
        """The first event of a chat names the role; a plain completion has none."""
        if not self.chat:
            return ""
        return self._event(
            '[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},'
            '"logprobs":null,"finish_reason":null}]'
        )

    def delta(self, text: str) -> str:
        shown = dumps(text)
        if self.chat:
            return self._event(
                f'[{{"index":0,"delta":{{"content":{shown}}},"logprobs":null,"finish_reason":null}}]'
            )
        return self._event(f'[{{"index":0,"text":{shown},"logprobs":null,"finish_reason":null}}]')

    def closing(self, answer: Answer) -> str:
        """The finish reason, the usage when it was asked for, and the end."""
        reason = dumps(answer.finish_reason)
        body = '"delta":{}' if self.chat else '"text":""'
        events = self._event(f'[{{"index":0,{body},"logprobs":null,"finish_reason":{reason}}}]')
        if self.include_usage:
            events += self._event("[]", usage=dumps(usage(answer)))
        return f"{events}data: [DONE]\n\n"

    def _event(self, choices: str, usage: str = "null") -> str:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        tail = f',"usage":{usage}' if self.include_usage else ""
        return (
            f'data: {{"id":"{self.id}","object":"{kind}","created":{self.created},'
            f'"model":{dumps(self.model)},"system_fingerprint":null,"choices":{choices}{tail}}}\n\n'
        )
