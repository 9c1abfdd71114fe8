"""Prompt versions: the docstring writer's base, adapted by instructions and two examples."""

from __future__ import annotations

import json

from openai import BadRequestError

from assay_demo.clients import openai_client
from assay_demo.data.materials import docstring_pairs
from assay_demo.families.showcase import Gate, Showcase
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage
from assay_demo.story.adapt import DOCSTRING_TEST, DOCSTRING_TEST_ROWS
from assay_demo.story.lives import BASE
from assay_demo.story.use import PROMPT

QUESTION = "Write the one-line docstring of this Python function.\n\n```python\n{source}\n```"
# Functions of modules that are not in the test data.
EXAMPLES = {
    "def getLoggerClass():\n    return _loggerClass": (
        "Return the class to be used when instantiating a logger."
    ),
    "def resetbuffer(self):\n    self.buffer = []": "Reset the input buffer.",
}
DOCUMENT = {
    "system": "You write docstrings for {{project}}: one short sentence that ends with a period.",
    "template": "{{input}}",
    "variables": [
        {
            "name": "project",
            "description": "The project that the function belongs to",
            "default": "Python's standard library",
            "max_length": 80,
        }
    ],
    "examples": [
        {"user": QUESTION.format(source=source), "assistant": line}
        for source, line in EXAMPLES.items()
    ],
    "decoding": {"temperature": 0.0, "max_tokens": 40, "stop": ["\n"], "fixed": ["temperature"]},
}


def _test(stage: Stage) -> bytes:
    _, rows = docstring_pairs(heldout_limit=DOCSTRING_TEST_ROWS)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _call(stage: Stage, model: str) -> str:
    """Set the variable, then send one that the prompt does not declare."""
    completions = openai_client(stage).chat.completions
    project = "a pocket calculator"
    answer = completions.create(
        model=model,
        messages=[{"role": "user", "content": PROMPT}],
        extra_body={"prompt_variables": {"project": project}},
    )
    text = (answer.choices[0].message.content or "").strip()
    stage.expect(bool(text), f"{model} answers")
    code = None
    try:
        completions.create(
            model=model,
            messages=[{"role": "user", "content": PROMPT}],
            extra_body={"prompt_variables": {"tone": "rude"}},
        )
    except BadRequestError as error:
        code = error.code
    stage.expect(code == "unknown_variable", "an undeclared variable is refused")
    return f"{model} writes “{text}” for {project}; an undeclared variable is refused."


SHOWCASE = Showcase(
    feature="prompt",
    task="text-generation",
    model="docstring-prompt",
    description="Suggests one-line docstrings, by a prompt of a variable and two examples.",
    base=Base.of_chapter_1(BASE),
    prompt=DOCUMENT,
    test=Data(DOCSTRING_TEST, "PSF-2.0", _test, suffix=".jsonl"),
    gate=Gate(
        "chrf",
        ">=",
        15.0,
        "On 12 functions of other modules the prompt reached 22, and the base without it 3.",
    ),
    call=_call,
    generates=True,
)
