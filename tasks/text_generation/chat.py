"""POST /v1/chat/completions, byte-compatible with OpenAI's client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from assay.plugins import declare
from tasks.text_generation.grounded import GroundedRenderer, delimited_passage, grounded_messages
from tasks.text_generation.rendering import ChatRenderer
from tasks.text_generation.sampling import Generation, ServiceTier, TokenCount, named_user
from tasks.text_generation.stored_chats import stored_plan
from tasks.text_generation.tools import (
    CalledTool,
    FunctionTool,
    NamedTool,
    ResponseFormat,
    ToolChoice,
    ToolWord,
    chosen_tools,
    prompt_estimate,
)

DEFAULT_CHAT_TOKENS = 512


class TextPart(declare.Strict):
    """A part of a message; only text is supported."""

    type: Literal["text"]
    text: declare.Text


Content = Annotated[
    Annotated[str, Field(max_length=1_000_000), Tag("one")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=256), Tag("many")],
    Discriminator(declare.one_or_many),
]


# OpenAI's pattern of names: without characters that could end a turn.
ParticipantName = Annotated[str, Field(max_length=64, pattern=r"^[^\s<|\\/>]+$")]


class Message(declare.Strict):
    """One turn. `developer` means `system`; a turn of `tool` answers a call.

    `name` distinguishes participants of one role: the model reads it before the turn's text. In a
    turn of `tool` it is the name of the called function.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: ParticipantName | None = None
    tool_calls: Annotated[list[CalledTool], Field(max_length=declare.MAX_CALLS)] | None = None
    tool_call_id: declare.Name | None = None
    # Fields of an earlier answer, which the client sends back as history.
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _fits_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only messages of the assistant may contain tool_calls")
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise ValueError("tool_call_id belongs to messages of the role tool, which require it")
        if self.content is None and not self.tool_calls:
            raise ValueError("content is missing")
        return self

    def with_name(self, text: str) -> str:
        """Return the text of the turn, after the participant's name if there is one."""
        return f"{self.name}: {text}" if self.name and text and self.role != "tool" else text

    def plain(self) -> declare.ChatMessage:
        """Return the turn in the engine's form. Raises RequestInvalid."""
        if isinstance(self.content, str):
            text = self.content
        else:
            text = "\n".join(part.text for part in self.content or ())
        role = "system" if self.role == "developer" else self.role
        return declare.ChatMessage(
            role=role,
            content=self.with_name(text),
            tool_calls=[call.plain() for call in self.tool_calls or ()],
            tool_call_id=self.tool_call_id,
        )


class ChatRequest(Generation):
    """POST /v1/chat/completions. `prompt_variables` fill in the prompt of a prompt version.

    `user` and `safety_identifier` name the end user, whose pseudonym the request log stores;
    `prompt_cache_key` is accepted for compatibility and has no effect. With `store`, the messages
    and the answer are stored under the answer's ID, with `metadata`, if the department keeps
    responses.
    """

    messages: Annotated[list[Message], Field(min_length=1, max_length=512)]
    prompt_variables: declare.Variables | None = None
    max_completion_tokens: TokenCount | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=declare.MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=declare.MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    functions: None = None
    function_call: None = None
    audio: None = None
    modalities: None = None
    prediction: None = None
    metadata: declare.Metadata | None = None
    reasoning_effort: None = None
    service_tier: ServiceTier | None = None
    safety_identifier: declare.User | None = None
    prompt_cache_key: declare.User | None = None
    verbosity: None = None
    web_search_options: None = None
    # An extension of Assay: answer from the passages of a knowledge base, with citations.
    knowledge_base: declare.Name | None = None
    max_passages: Annotated[int, Field(ge=1, le=declare.MAX_PASSAGES)] | None = None

    @model_validator(mode="after")
    def _stores(self) -> Self:
        if self.metadata and not self.store:
            raise ValueError("metadata requires store: true")
        if self.store and self.knowledge_base is not None:
            raise ValueError("store and knowledge_base exclude each other")
        return self

    @model_validator(mode="after")
    def _has_no_idle_field(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            both = "'max_tokens' and 'max_completion_tokens' at the same time"
            raise declare.idle_field(f"Setting {both} is not supported.", "max_tokens")
        if self.tool_choice is not None and not self.tools:
            alone = "'tool_choice' is only allowed when 'tools' are specified."
            raise declare.idle_field(f"Invalid value for 'tool_choice': {alone}", "tool_choice")
        return self

    @model_validator(mode="after")
    def _names_the_function(self) -> Self:
        """Require a turn of `tool` to name the function of the call that it answers."""
        called: dict[str, str] = {}
        for number, message in enumerate(self.messages):
            called |= {call.id: call.function.name for call in message.tool_calls or ()}
            expected = called.get(message.tool_call_id or "", message.name)
            if message.role == "tool" and message.name not in (None, expected):
                raise declare.idle_field(
                    f"messages[{number}] answers a call of '{expected}', not of '{message.name}'.",
                    f"messages[{number}].name",
                )
        return self

    @property
    def stated_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def token_limit(self) -> int:
        return self.stated_limit or DEFAULT_CHAT_TOKENS

    def prompt_tools(self) -> tuple[list[declare.Tool], dict[str, Any]]:
        """Return the tools in the prompt, and the options of their use.

        Raises:
            RequestInvalid: two parameters exclude each other.
        """
        choice: ToolWord | None = None
        name: str | None = None
        if isinstance(self.tool_choice, NamedTool):
            name = self.tool_choice.function.name
        else:
            choice = self.tool_choice
        functions = [tool.plain() for tool in self.tools or ()]
        tools, use = chosen_tools(functions, choice, name)
        if self.parallel_tool_calls is not None and not functions:
            raise declare.RequestInvalid(
                "parallel_tool_calls needs tools.", param="parallel_tool_calls"
            )
        schema = None if self.response_format is None else self.response_format.enforced
        if tools and schema is not None:
            raise declare.RequestInvalid(
                "response_format and tools exclude each other here.", param="response_format"
            )
        if tools and self.logprobs:
            raise declare.RequestInvalid(
                "logprobs and tools exclude each other here.", param="logprobs"
            )
        return tools, {
            "tool_choice": use,
            "tool_name": name,
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "json_schema": schema,
        }

    def stated_logprobs(self) -> int | None:
        """Return the number of likely tokens to report for each token. Raises RequestInvalid."""
        if self.top_logprobs is not None and not self.logprobs:
            raise declare.RequestInvalid("top_logprobs needs logprobs: true.", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


def read_chat(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/chat/completions. Raises RequestInvalid."""
    request = declare.parse(ChatRequest, body.data)
    messages = [message.plain() for message in request.messages]
    if request.knowledge_base is None:
        if request.max_passages is not None:
            raise declare.RequestInvalid(
                "max_passages requires knowledge_base.", param="max_passages"
            )
        plan = _chat_plan(request, request_id, messages)
        if not request.store:
            return plan
        items = [each.model_dump(mode="json", exclude_none=True) for each in request.messages]
        return stored_plan(plan, request.metadata, items)
    _check_grounded(request)
    questions = [message.text for message in messages if message.role == "user"]
    if not questions or not questions[-1].strip():
        raise declare.RequestInvalid(
            "With knowledge_base, messages must contain a question of the role user.",
            param="messages",
        )

    def plan_with(passages: Sequence[declare.Passage], own_system: bool) -> declare.Plan:
        grounded = grounded_messages(messages, passages, own_system=own_system)
        plan = _chat_plan(request, request_id, grounded, list(map(delimited_passage, passages)))
        renderer = GroundedRenderer(
            id=f"chatcmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            include_usage=request.include_usage,
            tier="default" if request.service_tier else "",
            knowledge_base=request.knowledge_base or "",
            passages=passages,
        )
        return replace(plan, renderer=renderer)

    grounding = declare.Grounding(
        knowledge_base=request.knowledge_base,
        query=questions[-1],
        most=request.max_passages or declare.DEFAULT_PASSAGES,
        plan_with=plan_with,
    )
    return replace(_chat_plan(request, request_id, messages), grounding=grounding)


def _check_grounded(request: ChatRequest) -> None:
    """Raise RequestInvalid for parameters that do not work with citations in the text."""
    form = request.response_format
    excluded = {
        "n": (request.n or 1) > 1,
        "tools": bool(request.tools),
        "logprobs": bool(request.logprobs),
        "response_format": form is not None and form.enforced is not None,
    }
    for name, is_set in excluded.items():
        if is_set:
            raise declare.RequestInvalid(
                f"{name} and knowledge_base exclude each other.", param=name
            )


def _chat_plan(
    request: ChatRequest,
    request_id: str,
    messages: list[declare.ChatMessage],
    passages: Sequence[str] = (),
) -> declare.Plan:
    tools, use = request.prompt_tools()
    options = request.options(request.token_limit, logprobs=request.stated_logprobs(), **use)
    prompt_tokens = prompt_estimate(messages, tools)
    return declare.Plan(
        model=request.model,
        user=named_user(request.safety_identifier, request.user, metadata=request.metadata),
        inputs=declare.GenerationInputs(
            messages=messages,
            tools=tools,
            variables=request.prompt_variables,
            passages=list(passages),
        ),
        options=options,
        stream=bool(request.stream),
        renderer=ChatRenderer(
            id=f"chatcmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            include_usage=request.include_usage,
            choices=options.choices,
            tier="default" if request.service_tier else "",
        ),
        tokens=prompt_tokens + request.token_limit * options.made,
        prompt_tokens=prompt_tokens,
    )
