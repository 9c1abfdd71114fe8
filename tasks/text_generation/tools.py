"""Tools and answer forms in OpenAI's shapes, converted to the engine's form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from assay.plugins import declare


class CalledFunction(declare.Strict):
    """A called function; `arguments` is a JSON object as text."""

    name: declare.FunctionName
    arguments: Annotated[str, Field(max_length=declare.MAX_JSON_BYTES)]


class CalledTool(declare.Strict):
    """A call of an earlier answer, sent back as history."""

    id: declare.Name
    type: Literal["function"]
    function: CalledFunction

    def plain(self) -> declare.ToolCall:
        """Return the call in the engine's form. Raises RequestInvalid."""
        return tool_call(self.id, self.function.name, self.function.arguments)


def tool_call(call_id: str, name: str, arguments: str) -> declare.ToolCall:
    """Return a call in the engine's form. Raises RequestInvalid for non-object arguments."""
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise declare.RequestInvalid(
            f"The arguments of call {declare.printable(call_id)} are not a JSON object.",
            param="arguments",
        )
    return declare.ToolCall(id=call_id, name=name, arguments=value)


class Function(declare.Strict):
    """A function that the model may call; without `parameters` it has no arguments."""

    name: declare.FunctionName
    description: Annotated[str, Field(max_length=8_192)] | None = None
    parameters: declare.JsonObject | None = None
    strict: bool | None = None


class FunctionTool(declare.Strict):
    """A tool; only functions are supported."""

    type: Literal["function"]
    function: Function

    def plain(self) -> declare.Tool:
        """Return the tool in the engine's form."""
        function = self.function
        return make_tool(
            function.name, function.description, function.parameters, strict=function.strict
        )


def make_tool(
    name: str, description: str | None, parameters: dict[str, Any] | None, *, strict: bool | None
) -> declare.Tool:
    """Return a tool in the engine's form."""
    schema = parameters or {"type": "object", "properties": {}, "additionalProperties": False}
    return declare.Tool(
        name=name, description=description or "", parameters=schema, strict=bool(strict)
    )


class NamedFunction(declare.Strict):
    """The name of a function."""

    name: declare.FunctionName


class NamedTool(declare.Strict):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


def chosen_tools(
    tools: list[declare.Tool], choice: str | None, name: str | None
) -> tuple[list[declare.Tool], Literal["auto", "required"]]:
    """Return the tools in the prompt, and whether the model must call one.

    `choice` is `none`, `auto` or `required`; `name` is the only function to call.

    Raises:
        RequestInvalid: The choice does not fit the tools.
    """
    if name is not None and name not in {tool.name for tool in tools}:
        raise declare.RequestInvalid(
            f"tool_choice names {name}, which is not among the tools.", param="tool_choice"
        )
    if not tools and choice == "required":
        raise declare.RequestInvalid(
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


class JsonSchemaFormat(declare.Strict):
    """A schema that the answer must fit; it is enforced regardless of `strict`."""

    name: declare.FunctionName
    schema_: Annotated[declare.JsonObject, Field(alias="schema")]
    description: Annotated[str, Field(max_length=8_192)] | None = None
    strict: bool | None = None


class ResponseFormat(declare.Strict):
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


def prompt_estimate(messages: Sequence[declare.ChatMessage], tools: Sequence[declare.Tool]) -> int:
    """Return an estimate of the tokens of a conversation and its tools."""
    texts = [message.text for message in messages]
    texts += [json.dumps(call.arguments) for message in messages for call in message.tool_calls]
    texts += [tool.name + tool.description + json.dumps(tool.parameters) for tool in tools]
    return declare.estimate_tokens(texts)
