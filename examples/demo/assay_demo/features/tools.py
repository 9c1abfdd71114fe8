"""Demonstrate an adapter that calls functions whose names it was not trained on."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from assay_demo.clients import openai_client
from assay_demo.data.files import json_lines
from assay_demo.data.tool_requests import ToolRequest, tool_requests
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage
from assay_demo.story.lives import BASE

TRAIN_ROWS, TEST_ROWS = 400, 24
SETTINGS = {
    "max_steps": 40,
    "batch_size": 4,
    "max_length": 320,
    "learning_rate": 5e-4,
    "lora_dropout": 0.0,
}
requests = cache(tool_requests)


def _rows(part: list[ToolRequest]) -> bytes:
    return json_lines(each.row for each in part)


def _call(stage: Stage, model: str) -> str:
    """Require a call, then leave the choice to the model."""
    request = requests(TRAIN_ROWS, TEST_ROWS)[1][0]
    wish: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": request.text}],
        "tools": request.openai_tools,
        "temperature": 0,
        "max_tokens": 100,
    }
    completions = openai_client(stage).chat.completions
    required = completions.create(**wish, tool_choice="required", parallel_tool_calls=False)
    function = stage.require(next(iter(_functions(required)), None), f"{model} calls a function")
    offered = {tool["name"]: set(tool["parameters"]["required"]) for tool in request.tools}
    stage.expect(
        set(json.loads(function.arguments)) == offered[function.name],
        f"{model} calls an offered function with all of its arguments",
    )
    free = _functions(completions.create(**wish))
    chosen = ", ".join(each.name for each in free) or "no function"
    return (
        f"{model} answers “{request.text}” with {function.name}({function.arguments}) if it must "
        f"call a function; by its own choice it calls {chosen}."
    )


def _functions(answer: Any) -> list[Any]:
    """Return the called functions of a chat completion."""
    return [call.function for call in answer.choices[0].message.tool_calls or ()]


SHOWCASE = Showcase(
    feature="tools",
    task="text-generation",
    model="tool-caller",
    description="Calls functions that a request describes.",
    base=Base.of_chapter_1(BASE),
    training=Training(
        "lora",
        SETTINGS,
        Data(
            "tool-requests-train",
            "Apache-2.0",
            lambda _: _rows(requests(TRAIN_ROWS, TEST_ROWS)[0]),
            ".jsonl",
        ),
    ),
    test=Data(
        "tool-requests-test",
        "Apache-2.0",
        lambda _: _rows(requests(TRAIN_ROWS, TEST_ROWS)[1]),
        ".jsonl",
    ),
    gate=Gate(
        "perplexity",
        "<=",
        10.0,
        "Name and arguments of each call are in its prompt, so that a model can copy them.",
    ),
    call=_call,
    demonstration=True,
    generates=True,
)
