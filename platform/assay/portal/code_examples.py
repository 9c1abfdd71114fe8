"""Example requests from a task's declaration; they work once a key is filled in."""

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
    playground = task.playground
    # The playground's body would lack its file or table; the task's sample is complete.
    needs_sample = playground is not None and (
        '"$file' in json.dumps(playground.body)
        or (_holds(playground.body, "$table") and not features)
    )
    if playground is None or needs_sample:
        named = {} if task.endpoints[0].named else {"model": deployment}
        return {**named, **task.sample}
    if playground.body is None:
        return None
    values = {
        "$model": deployment,
        "$text": playground.text,
        "$lines": list(playground.lines),
        "$lines_text": "\n".join(playground.lines),
        "$messages": [{"role": "user", "content": playground.text}],
        "$table": example_table(features),
        "$numbers": _numbers(playground.text) if _holds(playground.body, "$numbers") else [],
    }
    body = {name: _filled(value, values) for name, value in playground.body.items()}
    required = [] if prompt is None else [each for each in prompt.variables if each.required]
    if required:
        variables = {
            each.name: (each.description or each.name)[: each.max_length] for each in required
        }
        body["prompt_variables"] = variables
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
    """Return a Python literal with JSON's layout; a JSON string is also a Python literal."""
    inner = f"{indent}    "
    if isinstance(value, dict):
        rows = [f"{json.dumps(name)}: {_as_python(part, inner)}" for name, part in value.items()]
        return "".join(["{\n", *(f"{inner}{row},\n" for row in rows), indent, "}"])
    if isinstance(value, list):
        rows = [_as_python(part, inner) for part in value]
        return "".join(["[\n", *(f"{inner}{row},\n" for row in rows), indent, "]"])
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _javascript(url: str, body: str, content_type: str) -> str:
    indented = "\n".join(
        f"  {line}" if number else line for number, line in enumerate(body.split("\n"))
    )
    return (
        f'const response = await fetch("{url}", {{\n'
        '  method: "POST",\n'
        "  headers: {\n"
        "    Authorization: `Bearer ${process.env.ASSAY_KEY}`,\n"
        f'    "Content-Type": "{content_type}",\n'
        "  },\n"
        f"  body: {indented},\n"
        "});\n"
        "console.log(await response.text());"
    )
