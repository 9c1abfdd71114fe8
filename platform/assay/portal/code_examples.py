"""Requests that work once a key is put in, drawn from a task's declaration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.catalog.declaration import Modality, Task
from registry.catalog.features import Feature, example_table
from registry.catalog.prompt import PromptDocument

_FILES = {
    Modality.IMAGE: "picture.png",
    Modality.AUDIO: "recording.wav",
    Modality.VIDEO: "video.mp4",
}
_JSON = "application/json"
_FILE_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class CodeExample:
    """One request in one language; `name` is fit for an HTML ID."""

    name: str
    title: str
    code: str


def request_path(task: Task, deployment: str) -> str:
    """Return the path of the example request."""
    if task.playground and task.playground.path:
        return task.playground.path.replace("{model}", deployment)
    return task.endpoints[0].path_to(deployment)


def request_body(
    task: Task,
    deployment: str,
    features: Sequence[Feature] = (),
    prompt: PromptDocument | None = None,
) -> dict[str, Any] | None:
    """Return the example body, with the `features` of the model where it takes tables and the
    variables that its `prompt` requires; None when a file is the body."""
    asks = task.playground
    # A file inside the body, or a table of no known model: the sample has one, and works.
    needs_sample = asks is not None and (
        '"$file' in json.dumps(asks.body) or (_holds(asks.body, "$table") and not features)
    )
    if asks is None or needs_sample:
        named = {} if task.endpoints[0].named else {"model": deployment}
        return {**named, **task.sample}
    if asks.body is None:
        return None
    values = {
        "$model": deployment,
        "$text": asks.text,
        "$lines": list(asks.lines),
        "$lines_text": "\n".join(asks.lines),
        "$messages": [{"role": "user", "content": asks.text}],
        "$table": example_table(features),
        "$numbers": _numbers(asks.text) if _holds(asks.body, "$numbers") else [],
    }
    body = {name: _filled(value, values) for name, value in asks.body.items()}
    required = [] if prompt is None else [each for each in prompt.variables if each.required]
    if required:
        stated = {
            each.name: (each.description or each.name)[: each.max_length] for each in required
        }
        body["prompt_variables"] = stated
    return body


def _numbers(text: str) -> list[int | float]:
    """Return the numbers of a text, as the playground reads them."""
    words = text.replace(",", " ").replace(";", " ").split()
    return [int(word) if word.lstrip("-").isdecimal() else float(word) for word in words]


def _holds(value: Any, placeholder: str) -> bool:
    if isinstance(value, Mapping):
        return any(_holds(part, placeholder) for part in value.values())
    if isinstance(value, (list, tuple)):
        return any(_holds(part, placeholder) for part in value)
    return bool(value == placeholder)


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {name: _filled(part, values) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(part, values) for part in value]
    return values.get(value, value) if isinstance(value, str) else value


def code_examples(
    task: Task,
    deployment: str,
    root: str,
    features: Sequence[Feature] = (),
    prompt: PromptDocument | None = None,
) -> list[CodeExample]:
    """Return the same request for curl, Python and JavaScript; `root` is the address of Assay, and
    the rest is as for `request_body`."""
    url = f"{root}{request_path(task, deployment)}"
    body = request_body(task, deployment, features, prompt)
    if body is None:
        file = next((_FILES[each] for each in task.inputs if each in _FILES), "input.bin")
        return [
            CodeExample("curl", "curl", _curl(url, _FILE_TYPE, f"@{file}")),
            CodeExample("python", "Python", _python(url, f'content=open("{file}", "rb").read()')),
            CodeExample("javascript", "JavaScript", _javascript(url, "file", _FILE_TYPE)),
        ]
    text = json.dumps(body, indent=2, ensure_ascii=False)
    quoted = text.replace("'", "'\\''")
    return [
        CodeExample("curl", "curl", _curl(url, _JSON, f"'{quoted}'")),
        CodeExample("python", "Python", _python(url, f"json={_as_python(body)}")),
        CodeExample("javascript", "JavaScript", _javascript(url, f"JSON.stringify({text})", _JSON)),
    ]


def _curl(url: str, content_type: str, data: str) -> str:
    option = "--data-binary" if data.startswith("@") else "-d"
    return (
        f"curl {url} \\\n"
        '  -H "Authorization: Bearer $ASSAY_KEY" \\\n'
        f'  -H "Content-Type: {content_type}" \\\n'
        f"  {option} {data}"
    )


def _python(url: str, payload: str) -> str:
    headers = '{"Authorization": f"Bearer {os.environ[\'ASSAY_KEY\']}"'
    if payload.startswith("content="):
        headers += f', "Content-Type": "{_FILE_TYPE}"'
    return (
        "import os\n\nimport httpx\n\n"
        f'response = httpx.post(\n    "{url}",\n    headers={headers}}},\n    {payload},\n)\n'
        "response.raise_for_status()\nprint(response.text)"
    )


def _as_python(value: Any, indent: str = "    ") -> str:
    """Return a literal laid out as JSON is; a JSON string is a Python literal, too."""
    inner = f"{indent}    "
    if isinstance(value, dict):
        rows = [f"{json.dumps(name)}: {_as_python(part, inner)}" for name, part in value.items()]
        return "".join(["{\n", *(f"{inner}{row},\n" for row in rows), indent, "}"])
    if isinstance(value, list):
        rows = [_as_python(part, inner) for part in value]
        return "".join(["[\n", *(f"{inner}{row},\n" for row in rows), indent, "]"])
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _javascript(url: str, body: str, content_type: str) -> str:
    shown = "\n".join(
        f"  {line}" if number else line for number, line in enumerate(body.split("\n"))
    )
    return (
        f'const response = await fetch("{url}", {{\n'
        '  method: "POST",\n'
        "  headers: {\n"
        "    Authorization: `Bearer ${process.env.ASSAY_KEY}`,\n"
        f'    "Content-Type": "{content_type}",\n'
        "  },\n"
        f"  body: {shown},\n"
        "});\n"
        "console.log(await response.text());"
    )
