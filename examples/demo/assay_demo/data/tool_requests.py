"""Generated conversations in which the model answers a request by calling a tool.

No verb or object of a test tool's name occurs in the training data, and the test requests have
other wordings. A model that calls test tools has learned to read the list of tools.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

SEED = 29
OPENING, CLOSING = "<tool_call>", "</tool_call>"
# The form in which Assay describes tools to a model whose chat template has no place for them.
INTRODUCTION = f"""You can call these functions, each with a JSON schema of its arguments:
{{functions}}
To call a function, answer only with its name and arguments, in this form:
{OPENING}
{{{{"name": "function", "arguments": {{{{}}}}}}}}
{CLOSING}"""

_TRAIN_VERBS = (
    *("find", "create", "cancel", "open", "send", "list", "move", "print", "check"),
    *("copy", "count", "update"),
)
_TRAIN_OBJECTS = (
    *("order", "invoice", "ticket", "report", "meeting", "parcel", "contract", "backup", "photo"),
    *("playlist", "account", "server", "room", "flight", "recipe", "lamp"),
)
_TEST_VERBS = (
    *("book", "archive", "rename", "schedule", "lock", "export", "share", "start", "remove"),
    *("translate", "rate", "delay"),
)
_TEST_OBJECTS = (
    *("table", "taxi", "letter", "survey", "lesson", "garden", "ferry", "museum", "heater"),
    *("database", "podcast", "refund"),
)
_TRAIN_WORDINGS = (
    "Please {verb} the {object} {details}.",
    "Can you {verb} a {object} {details}?",
    "I need you to {verb} the {object} {details}.",
)
_TEST_WORDINGS = (
    "Would you {verb} this {object} {details}?",
    "{Verb} the {object} {details}, please.",
)
# Requests that no tool answers, with their answers.
_SMALL_TALK = (
    ("Thank you very much!", "You are welcome."),
    ("Good morning!", "Good morning! How can I help you?"),
    ("That is all for today.", "Goodbye, and have a nice day."),
)
_CITIES = ("Oslo", "Lima", "Cairo", "Turin", "Perth", "Quito", "Malmo", "Kyoto")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_LEVELS = ("low", "normal", "high")


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A request, the offered tools and the expected call. `name` is None if no tool fits."""

    text: str
    tools: list[dict[str, Any]]
    name: str | None
    arguments: dict[str, Any]
    answer: str

    @property
    def row(self) -> dict[str, Any]:
        """The conversation in the form that models learn from."""
        functions = "\n".join(json.dumps(tool) for tool in self.tools)
        turns = {
            "system": INTRODUCTION.format(functions=functions),
            "user": self.text,
            "assistant": self.answer,
        }
        return {"messages": [{"role": role, "content": text} for role, text in turns.items()]}

    @property
    def openai_tools(self) -> list[dict[str, Any]]:
        """The tools in the form of OpenAI's API."""
        return [{"type": "function", "function": tool} for tool in self.tools]


def tool_requests(train: int, test: int) -> tuple[list[ToolRequest], list[ToolRequest]]:
    """Return training requests, and test requests for tools that training does not use.

    There are 144 test tools.
    """
    draw = random.Random(SEED)
    learned = [(verb, each) for verb in _TRAIN_VERBS for each in _TRAIN_OBJECTS]
    unseen = [(verb, each) for verb in _TEST_VERBS for each in _TEST_OBJECTS]
    draw.shuffle(unseen)
    training = [
        _small_talk(draw, learned, number // 6)
        if number % 6 == 5
        else _request(draw, draw.choice(learned), learned, _TRAIN_WORDINGS)
        for number in range(train)
    ]
    testing = [_request(draw, tool, unseen, _TEST_WORDINGS) for tool in unseen[:test]]
    return training, testing


def _request(
    draw: random.Random, tool: tuple[str, str], others: list[tuple[str, str]], wordings: Any
) -> ToolRequest:
    verb, thing = tool
    name, details, arguments, schema = _tool(draw, verb, thing)
    wording = draw.choice(wordings)
    text = wording.format(verb=verb, Verb=verb.capitalize(), object=thing, details=details)
    tools = [schema, _other(draw, tool, others)]
    draw.shuffle(tools)
    call = json.dumps({"name": name, "arguments": arguments})
    return ToolRequest(text, tools, name, arguments, f"{OPENING}\n{call}\n{CLOSING}")


def _small_talk(draw: random.Random, others: list[tuple[str, str]], number: int) -> ToolRequest:
    text, answer = _SMALL_TALK[number % len(_SMALL_TALK)]
    tools = [_other(draw, ("", ""), others) for _ in range(2)]
    return ToolRequest(text, tools, None, {}, answer)


def _other(
    draw: random.Random, tool: tuple[str, str], others: list[tuple[str, str]]
) -> dict[str, Any]:
    """Return a tool that has neither the verb nor the object of `tool`."""
    verb, thing = draw.choice([each for each in others if not set(each) & set(tool)])
    return _tool(draw, verb, thing)[-1]


def _tool(
    draw: random.Random, verb: str, thing: str
) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """Return a tool's name, the details of a request, its arguments, and the tool."""
    city, day, count, level = (
        draw.choice(_CITIES),
        draw.choice(_DAYS),
        draw.randint(2, 90),
        draw.choice(_LEVELS),
    )
    name = f"{verb}_{thing}"
    details, properties, arguments = draw.choice(
        (
            (f"in {city}", {"city": {"type": "string"}}, {"city": city}),
            (f"on {day}", {"day": {"enum": list(_DAYS)}}, {"day": day}),
            (f"with number {count}", {"number": {"type": "integer"}}, {"number": count}),
            (
                f"in {city} with {level} priority",
                {"city": {"type": "string"}, "priority": {"enum": list(_LEVELS)}},
                {"city": city, "priority": level},
            ),
        )
    )
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    description = f"{verb.capitalize()} a {thing}."
    tool = {"name": name, "description": description, "parameters": parameters}
    return name, details, arguments, tool
