"""POST /v1/messages for text and functions, compatible with Anthropic's client.

https://docs.claude.com/en/api/messages
"""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from assay.plugins import declare
from tasks.text_generation.messages_rendering import CountRenderer, MessagesRenderer
from tasks.text_generation.sampling import Fraction, chosen_settings
from tasks.text_generation.tools import chosen_tools, make_tool, prompt_estimate

MAX_BLOCKS = 256


class CacheControl(declare.Strict):
    """A caching hint. It affects neither the answer nor its price."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(declare.Strict):
    """A text. Blocks of an answer can be sent back unchanged."""

    type: Literal["text"]
    text: declare.Text
    cache_control: CacheControl | None = None
    citations: None = None


class ToolUseBlock(declare.Strict):
    """A call from an earlier answer."""

    type: Literal["tool_use"]
    id: declare.Name
    name: declare.FunctionName
    input: declare.JsonObject
    cache_control: CacheControl | None = None
    caller: None = None
    toolset_name: None = None


Texts = Annotated[
    Annotated[str, Field(max_length=1_000_000), Tag("one")]
    | Annotated[list[TextBlock], Field(max_length=MAX_BLOCKS), Tag("many")],
    Discriminator(declare.one_or_many),
]


class ToolResultBlock(declare.Strict):
    """The result of a call. With `is_error`, the model reads `Error:` before it."""

    type: Literal["tool_result"]
    tool_use_id: declare.Name
    content: Texts | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None
    toolset_name: None = None

    def plain(self) -> declare.ChatMessage:
        """Return the result in the engine's form."""
        text = plain_text(self.content or "")
        if self.is_error:
            text = f"Error: {text}".strip()
        return declare.ChatMessage(role="tool", content=text, tool_call_id=self.tool_use_id)


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")],
    Field(discriminator="type"),
]
Blocks = Annotated[
    Annotated[str, Field(min_length=1, max_length=1_000_000), Tag("one")]
    | Annotated[list[Block], Field(min_length=1, max_length=MAX_BLOCKS), Tag("many")],
    Discriminator(declare.one_or_many),
]


def plain_text(content: str | list[TextBlock]) -> str:
    """Return the texts, one per line."""
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


class MessageParam(declare.Strict):
    """One turn. Tool results come before the text of their turn."""

    role: Literal["user", "assistant"]
    content: Blocks

    @model_validator(mode="after")
    def _fits_role(self) -> Self:
        if isinstance(self.content, str):
            return self
        kinds = [block.type for block in self.content]
        if "tool_use" in kinds and self.role != "assistant":
            raise ValueError("only messages of the assistant may contain tool_use")
        if "tool_result" in kinds and self.role != "user":
            raise ValueError("only messages of the user may contain tool_result")
        if "text" in kinds and "tool_result" in kinds[kinds.index("text") :]:
            raise ValueError("tool_result must come before the text of its message")
        if kinds.count("tool_use") > declare.MAX_CALLS:
            raise ValueError(f"a message may contain at most {declare.MAX_CALLS} tool_use")
        return self

    def plain(self) -> list[declare.ChatMessage]:
        """Return the turn in the engine's form, with a separate turn for each tool result."""
        if isinstance(self.content, str):
            return [declare.ChatMessage(role=self.role, content=self.content)]
        turns = [each.plain() for each in self.content if isinstance(each, ToolResultBlock)]
        texts = [each for each in self.content if isinstance(each, TextBlock)]
        calls = [
            declare.ToolCall(id=each.id, name=each.name, arguments=each.input)
            for each in self.content
            if isinstance(each, ToolUseBlock)
        ]
        if texts or calls:
            turns.append(
                declare.ChatMessage(role=self.role, content=plain_text(texts), tool_calls=calls)
            )
        return turns


class ToolParam(declare.Strict):
    """A function that the model may call; server tools are not supported."""

    name: declare.FunctionName
    input_schema: declare.JsonObject
    description: Annotated[str, Field(max_length=8_192)] | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    allowed_callers: None = None
    defer_loading: Literal[False] | None = None
    eager_input_streaming: Literal[False] | None = None
    input_examples: None = None

    def plain(self) -> declare.Tool:
        """Return the tool in the engine's form."""
        return make_tool(self.name, self.description, self.input_schema, strict=self.strict)


class ToolChoice(declare.Strict):
    """Use of the tools: `any` requires a call, `tool` a call of the named tool."""

    type: Literal["auto", "any", "tool", "none"]
    name: declare.FunctionName | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _has_name(self) -> Self:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("name belongs to the type tool")
        return self


class JsonFormat(declare.Strict):
    """A schema that the answer must fit."""

    type: Literal["json_schema"]
    schema_: Annotated[declare.JsonObject, Field(alias="schema")]


class OutputConfig(declare.Strict):
    """The form of the answer."""

    format: JsonFormat | None = None
    effort: None = None


class Thinking(declare.Strict):
    """Settings of thinking, which is not supported."""

    type: Literal["disabled"]


class Metadata(declare.Strict):
    """`user_id` is the application's name for its user; the request log stores its pseudonym."""

    user_id: declare.User | None = None


class CountRequest(declare.Strict):
    """POST /v1/messages/count_tokens."""

    model: declare.Name
    messages: Annotated[list[MessageParam], Field(min_length=1, max_length=512)]
    system: Texts | None = None
    tools: Annotated[list[ToolParam], Field(max_length=declare.MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None
    thinking: Thinking | None = None
    cache_control: CacheControl | None = None
    context_management: None = None
    mcp_servers: Annotated[list[Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _chooses_among_tools(self) -> Self:
        if self.tool_choice is not None and not self.tools:
            raise declare.idle_field(
                "tool_choice may only be specified while providing tools", "tool_choice"
            )
        return self

    def prompt(self) -> tuple[declare.GenerationInputs, dict[str, Any], int]:
        """Return the model's inputs, the options of the answer's form, and the estimated tokens of
        the inputs.

        Raises:
            RequestInvalid: Parameters exclude each other, or the last message is not the user's.
        """
        turns = self._turns()
        tools, options = self.tools_and_form()
        return (
            declare.GenerationInputs(messages=turns, tools=tools),
            options,
            prompt_estimate(turns, tools),
        )

    def check_last(self) -> None:
        """Raise RequestInvalid unless the last message is the user's."""
        if self.messages[-1].role != "user":
            raise declare.RequestInvalid(
                "The last message must be the user's; answers cannot be prefilled.",
                param="messages",
            )

    def _turns(self) -> list[declare.ChatMessage]:
        """Return the conversation in the engine's form. Raises RequestInvalid.

        Consecutive turns of the user are joined.
        """
        self.check_last()
        turns: list[declare.ChatMessage] = []
        if system := plain_text(self.system or ""):
            turns.append(declare.ChatMessage(role="system", content=system))
        plain_turns = (turn for message in self.messages for turn in message.plain())
        for role, group in groupby(plain_turns, lambda turn: turn.role):
            following = list(group)
            if role == "user":
                # One join for all: joining turn by turn would copy the earlier text each time.
                text = "\n".join(turn.text for turn in following)
                following = [declare.ChatMessage(role="user", content=text)]
            turns += following
        return turns

    def tools_and_form(self) -> tuple[list[declare.Tool], dict[str, Any]]:
        """Return the tools in the prompt, and the options of the answer's form.

        Raises:
            RequestInvalid: two parameters exclude each other.
        """
        choice = self.tool_choice or ToolChoice(type="auto")
        words = {"any": "required", "none": "none"}
        functions = [tool.plain() for tool in self.tools or ()]
        tools, use = chosen_tools(functions, words.get(choice.type), choice.name)
        form = None if self.output_config is None else self.output_config.format
        if tools and form is not None:
            raise declare.RequestInvalid(
                "output_config.format and tools exclude each other here.", param="output_config"
            )
        return tools, {
            "tool_choice": use,
            "tool_name": choice.name,
            "parallel_tool_calls": not choice.disable_parallel_tool_use,
            "json_schema": None if form is None else form.schema_,
        }


class MessagesRequest(CountRequest):
    """POST /v1/messages. `service_tier` has no effect; the only tier is `standard`."""

    max_tokens: Annotated[int, Field(ge=1, le=declare.MAX_TOKENS)]
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_p: Fraction | None = None
    top_k: None = None
    stop_sequences: (
        Annotated[list[declare.StopText], Field(max_length=declare.MAX_STOPS)] | None
    ) = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    container: None = None
    inference_geo: None = None
    speed: Literal["standard"] | None = None


def read_messages(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/messages. Raises RequestInvalid."""
    request = declare.parse(MessagesRequest, body.data)
    inputs, options, prompt_tokens = request.prompt()
    return messages_plan(request, request_id, inputs, options, prompt_tokens)


def messages_plan(
    request: MessagesRequest,
    request_id: str,
    inputs: declare.GenerationInputs,
    options: dict[str, Any],
    prompt_tokens: int,
) -> declare.Plan:
    """Return the plan of a request. `options` set the form of the answer; `prompt_tokens` is an
    estimate."""
    return declare.Plan(
        model=request.model,
        user=(request.metadata and request.metadata.user_id) or "",
        inputs=inputs,
        options=declare.SamplingOptions(
            max_tokens=request.max_tokens,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            stop=request.stop_sequences or [],
            name_stop=bool(request.stop_sequences),
            stated=chosen_settings(
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                stop=request.stop_sequences,
            ),
            **options,
        ),
        stream=bool(request.stream),
        renderer=MessagesRenderer(id=f"msg_{request_id[4:]}", model=request.model),
        tokens=prompt_tokens + request.max_tokens,
        prompt_tokens=prompt_tokens,
    )


def read_count(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/messages/count_tokens. Raises RequestInvalid."""
    request = declare.parse(CountRequest, body.data)
    inputs, options, prompt_tokens = request.prompt()
    return declare.Plan(
        model=request.model,
        inputs=inputs,
        options=declare.SamplingOptions(max_tokens=0, stated=["max_tokens"], **options),
        renderer=CountRenderer(),
        tokens=prompt_tokens,
        prompt_tokens=prompt_tokens,
        counts_only=True,
    )
