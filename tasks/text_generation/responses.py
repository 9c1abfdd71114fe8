"""POST /v1/responses for text and functions, compatible with OpenAI's client.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, TypeAdapter, model_validator

from assay.plugins import declare
from tasks.text_generation.responses_rendering import ResponsesRenderer
from tasks.text_generation.sampling import ServiceTier, chosen_settings, named_user
from tasks.text_generation.tools import (
    ToolWord,
    chosen_tools,
    make_tool,
    prompt_estimate,
    tool_call,
)

DEFAULT_TOKENS = 512
MAX_ITEMS = 512


class InputText(declare.Strict):
    """A part of a message: text of the caller, or of an earlier answer."""

    type: Literal["input_text", "output_text"]
    text: Annotated[str, Field(max_length=1_000_000)]
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Annotated[list[Any], Field(max_length=0)] | None = None


Content = Annotated[
    Annotated[str, Field(max_length=1_000_000), Tag("one")]
    | Annotated[list[InputText], Field(min_length=1, max_length=256), Tag("many")],
    Discriminator(declare.one_or_many),
]


class InputMessage(declare.Strict):
    """One turn. An answer can be sent back unchanged, with its `id` and `status`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    type: Literal["message"] | None = None
    id: declare.Name | None = None
    status: Literal["completed", "incomplete"] | None = None
    phase: None = None

    def plain(self) -> declare.ChatMessage:
        """Return role and text in the engine's form."""
        role = "system" if self.role == "developer" else self.role
        return declare.ChatMessage(role=role, content=_text(self.content))


def _text(content: str | list[InputText]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


class FunctionCall(declare.Strict):
    """A call from an earlier answer."""

    type: Literal["function_call"]
    call_id: declare.Name
    name: declare.FunctionName
    arguments: Annotated[str, Field(max_length=declare.MAX_JSON_BYTES)]
    id: declare.Name | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None
    caller: None = None
    namespace: None = None
    async_: Annotated[None, Field(alias="async")] = None


class FunctionCallOutput(declare.Strict):
    """The result of a function call."""

    type: Literal["function_call_output"]
    call_id: declare.Name
    output: Content
    id: declare.Name | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None

    def plain(self) -> declare.ChatMessage:
        """Return the result in the engine's form."""
        text = _text(self.output)
        return declare.ChatMessage(role="tool", content=text, tool_call_id=self.call_id)


def _kind_of_item(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"~{kind}" if kind in ("function_call", "function_call_output") else "~message"


InputItem = InputMessage | FunctionCall | FunctionCallOutput
Item = Annotated[
    Annotated[InputMessage, Tag("~message")]
    | Annotated[FunctionCall, Tag("~function_call")]
    | Annotated[FunctionCallOutput, Tag("~function_call_output")],
    Discriminator(_kind_of_item),
]
Input = Annotated[
    Annotated[declare.Text, Tag("one")]
    | Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS), Tag("many")],
    Discriminator(declare.one_or_many),
]
_ITEMS: TypeAdapter[list[InputItem]] = TypeAdapter(list[Item])


class TextFormat(declare.Strict):
    """The form of the answer: text, any JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: declare.FunctionName | None = None
    schema_: Annotated[declare.JsonObject | None, Field(alias="schema")] = None
    description: Annotated[str, Field(max_length=8_192)] | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if (self.type == "json_schema") != (self.schema_ is not None and self.name is not None):
            raise ValueError("name and schema belong to the type json_schema")
        return self

    @property
    def enforced(self) -> dict[str, Any] | None:
        """Return the schema that the answer must fit."""
        return {"type": "object"} if self.type == "json_object" else self.schema_


class ResponsesTool(declare.Strict):
    """A tool; only functions are supported."""

    type: Literal["function"]
    name: declare.FunctionName
    description: Annotated[str, Field(max_length=8_192)] | None = None
    parameters: declare.JsonObject | None = None
    strict: bool | None = None

    def plain(self) -> declare.Tool:
        """Return the tool in the engine's form."""
        return make_tool(self.name, self.description, self.parameters, strict=self.strict)


class ChosenFunction(declare.Strict):
    """The function that must be called."""

    type: Literal["function"]
    name: declare.FunctionName


ResponsesToolChoice = Annotated[
    Annotated[ToolWord, Tag("~word")] | Annotated[ChosenFunction, Tag("~named")],
    Discriminator(lambda value: "~word" if isinstance(value, str) else "~named"),
]


class TextSettings(declare.Strict):
    """Settings of the answer's text."""

    format: TextFormat | None = None
    verbosity: None = None


class PromptReference(declare.Strict):
    """Values for the deployment's prompt; `id` is the name of the deployment."""

    id: declare.Name | None = None
    variables: declare.Variables | None = None
    version: None = None


class ResponsesRequest(declare.Strict):
    """POST /v1/responses. `instructions` are the first system message; they do not apply to later
    responses of the conversation.

    The response repeats `user`, `safety_identifier` and `prompt_cache_key`. The first two name the
    end user, whose pseudonym the request log stores; the third has no other effect.
    """

    model: declare.Name
    input: Input
    instructions: declare.Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=declare.MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    stream: bool | None = None
    text: TextSettings | None = None
    user: declare.User | None = None
    metadata: declare.Metadata | None = None
    store: bool | None = None
    background: Literal[False] | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["disabled"] | None = None
    top_logprobs: Literal[0] | None = None
    tools: Annotated[list[ResponsesTool], Field(max_length=declare.MAX_TOOLS)] | None = None
    tool_choice: ResponsesToolChoice | None = None
    include: Annotated[list[Any], Field(max_length=0)] | None = None
    conversation: None = None
    max_tool_calls: None = None
    previous_response_id: declare.Name | None = None
    prompt: PromptReference | None = None
    prompt_cache_key: declare.User | None = None
    reasoning: None = None
    safety_identifier: declare.User | None = None
    service_tier: ServiceTier | None = None
    stream_options: None = None

    def items(self) -> Sequence[InputItem]:
        """Return the input as items."""
        if isinstance(self.input, str):
            return [InputMessage(role="user", content=self.input, type="message")]
        return self.input

    def messages(self) -> list[declare.ChatMessage]:
        """Return the conversation in the engine's form. Raises RequestInvalid."""
        messages: list[declare.ChatMessage] = []
        if self.instructions is not None:
            messages.append(declare.ChatMessage(role="system", content=self.instructions))
        for item in self.items():
            if not isinstance(item, FunctionCall):
                messages.append(item.plain())
                continue
            # A call joins the text before it and the other calls of its turn.
            call = tool_call(item.call_id, item.name, item.arguments)
            turn = messages.pop() if messages and messages[-1].role == "assistant" else None
            content = "" if turn is None else turn.text
            calls = [*(turn.tool_calls if turn else ()), call]
            messages.append(
                declare.ChatMessage(role="assistant", content=content, tool_calls=calls)
            )
        return messages

    def use(self) -> tuple[list[declare.Tool], dict[str, Any]]:
        """Return the tools in the prompt, and the options of the answer's form.

        Raises:
            RequestInvalid: two parameters exclude each other.
        """
        choice: ToolWord | None = None
        name: str | None = None
        if isinstance(self.tool_choice, ChosenFunction):
            name = self.tool_choice.name
        else:
            choice = self.tool_choice
        tools, use = chosen_tools([tool.plain() for tool in self.tools or ()], choice, name)
        form = self.text.format if self.text is not None else None
        schema = None if form is None else form.enforced
        if tools and schema is not None:
            raise declare.RequestInvalid(
                "text.format and tools exclude each other here.", param="text"
            )
        return tools, {
            "tool_choice": use,
            "tool_name": name,
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "json_schema": schema,
        }


_REPEATED = ("prompt_cache_key", "safety_identifier", "user")


def read_responses(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/responses. Raises RequestInvalid."""
    request = declare.parse(ResponsesRequest, body.data)

    def plan_of(request: ResponsesRequest, stored: bool) -> declare.Plan:
        return responses_plan(request, request_id, stored=stored)

    return continued(request, request.store, plan_of)


def continued(
    request: ResponsesRequest,
    store: bool | None,
    plan_of: Callable[[ResponsesRequest, bool], declare.Plan],
) -> declare.Plan:
    """Return the plan of a request that may continue a response or may be stored.

    `plan_of(request, stored)` returns the plan of a request whose input is the conversation.

    Raises:
        RequestInvalid: The conversation is too long, or parameters exclude each other.
    """
    items = [
        item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in request.items()
    ]

    def plan_with(earlier: Sequence[Mapping[str, Any]], stored: bool) -> declare.Plan:
        whole = _ITEMS.validate_python([*earlier, *items])
        if len(whole) > MAX_ITEMS:
            raise declare.RequestInvalid(
                f"The conversation has {len(whole)} items; at most {MAX_ITEMS} are accepted.",
                param="input",
            )
        return plan_of(request.model_copy(update={"input": whole}), stored)

    plan = plan_of(request, False)
    if request.previous_response_id is None and store is False:
        return plan
    conversation = declare.Conversation(request.previous_response_id, store, items, plan_with)
    return replace(plan, conversation=conversation)


def responses_plan(request: ResponsesRequest, request_id: str, *, stored: bool) -> declare.Plan:
    """Return the plan of a complete request. Raises RequestInvalid."""
    messages = request.messages()
    tools, use = request.use()
    prompt_tokens = prompt_estimate(messages, tools)
    prompt = request.prompt or PromptReference()
    if prompt.id not in (None, request.model):
        raise declare.RequestInvalid(
            "prompt.id must be the model: a prompt is served under its deployment's name.",
            param="prompt.id",
        )
    limit = request.max_output_tokens or DEFAULT_TOKENS
    options = declare.SamplingOptions(
        max_tokens=limit,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        stated=chosen_settings(
            max_tokens=request.max_output_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
        ),
        **use,
    )
    repeated = {"text", "tool_choice", "tools", *_REPEATED}
    echo = request.model_dump(mode="json", by_alias=True, exclude_none=True, include=repeated)
    return declare.Plan(
        model=request.model,
        user=named_user(request.safety_identifier, request.user, metadata=request.metadata),
        inputs=declare.GenerationInputs(messages=messages, tools=tools, variables=prompt.variables),
        options=options,
        stream=bool(request.stream),
        renderer=ResponsesRenderer(
            id=f"resp_{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            stated={
                "instructions": request.instructions,
                "max_output_tokens": request.max_output_tokens,
                "metadata": request.metadata or {},
                "parallel_tool_calls": use["parallel_tool_calls"],
                "temperature": options.temperature,
                "text": echo.get("text") or {"format": {"type": "text"}},
                "tool_choice": echo.get("tool_choice", "auto"),
                "tools": [
                    {"parameters": None, "strict": None, **tool} for tool in echo.get("tools", [])
                ],
                "top_p": options.top_p,
                "previous_response_id": request.previous_response_id,
                "store": stored,
                "service_tier": "default",
                **{name: echo[name] for name in _REPEATED if name in echo},
            },
        ),
        tokens=prompt_tokens + limit,
        prompt_tokens=prompt_tokens,
    )
