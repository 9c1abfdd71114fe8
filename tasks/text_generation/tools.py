"""Tools and forms of the answer in OpenAI's shapes, as engines take them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from registry.catalog.generation import ChatMessage, FunctionName, JsonObject, Tool, ToolCall
from registry.catalog.json_bounds import MAX_BYTES
from registry.catalog.requests import Name, RequestInvalid, Strict, estimate_tokens, printable


class CalledFunction(Strict):
    """A function that was called; `arguments` is a JSON object as text."""

    name: FunctionName
    arguments: Annotated[str, Field(max_length=MAX_BYTES)]


class CalledTool(Strict):
    """A call of an earlier answer, sent back as history."""

    id: Name
    type: Literal["function"]
    function: CalledFunction

    def plain(self) -> ToolCall:
        """Return the call as an engine takes it. Raises RequestInvalid."""
        return tool_call(self.id, self.function.name, self.function.arguments)


def tool_call(call_id: str, name: str, arguments: str) -> ToolCall:
    """Return a call as an engine takes it. Raises RequestInvalid: its arguments are no object."""
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RequestInvalid(
            f"The arguments of call {printable(call_id)} are not a JSON object.", param="arguments"
        )
    return ToolCall(id=call_id, name=name, arguments=value)


class Function(Strict):
    """A function that the model may call; without `parameters` it takes none."""

    name: FunctionName
    description: Annotated[str, Field(max_length=8_192)] | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class FunctionTool(Strict):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: Function

    def plain(self) -> Tool:
        """Return the tool as an engine takes it."""
        function = self.function
        return make_tool(
            function.name, function.description, function.parameters, strict=function.strict
        )


def make_tool(
    name: str, description: str | None, parameters: dict[str, Any] | None, *, strict: bool | None
) -> Tool:
    """Return a tool as an engine takes it."""
    schema = parameters or {"type": "object", "properties": {}, "additionalProperties": False}
    return Tool(name=name, description=description or "", parameters=schema, strict=bool(strict))


class NamedFunction(Strict):
    """The name of a function."""

    name: FunctionName


class NamedTool(Strict):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


def chosen_tools(
    tools: list[Tool], choice: str | None, name: str | None
) -> tuple[list[Tool], Literal["auto", "required"]]:
    """Return the tools that the model is shown, and whether it must call one.

    `choice` is `none`, `auto` or `required`; `name` the one function to call.

    Raises:
        RequestInvalid: The choice does not fit the tools.
    """
    if name is not None and name not in {tool.name for tool in tools}:
        raise RequestInvalid(
            f"tool_choice names {name}, which is not among the tools.", param="tool_choice"
        )
    if not tools and choice == "required":
        raise RequestInvalid(
            "Tool choice 'required' must be specified with 'tools' parameter.", param="tool_choice"
        )
    if choice == "none":
        return [], "auto"
    return tools, "required" if choice == "required" or name is not None else "auto"


ToolWord = Literal["none", "auto", "required"]
ToolChoice = Annotated[
    Annotated[ToolWord, Tag("~word")] | Annotated[NamedTool, Tag("~named")],
    Discriminator(lambda value: "~word" if isinstance(value, str) else "~named"),
]


class JsonSchemaFormat(Strict):
    """A schema that the answer fits; it is enforced whatever `strict` says."""

    name: FunctionName
    schema_: Annotated[JsonObject, Field(alias="schema")]
    description: Annotated[str, Field(max_length=8_192)] | None = None
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form of the answer: text, any JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise ValueError("json_schema belongs to the type json_schema")
        return self

    @property
    def enforced(self) -> dict[str, Any] | None:
        """Return the schema that the answer must fit."""
        if self.json_schema is not None:
            return self.json_schema.schema_
        return {"type": "object"} if self.type == "json_object" else None


def prompt_estimate(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> int:
    """Return an estimate of the tokens of a conversation and its tools."""
    texts = [message.text for message in messages]
    texts += [json.dumps(call.arguments) for message in messages for call in message.tool_calls]
    texts += [tool.name + tool.description + json.dumps(tool.parameters) for tool in tools]
    return estimate_tokens(texts)
