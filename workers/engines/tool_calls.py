"""Tool calls in a model's answer: the forms of model families, and a reader of them.

The chat template tells the form, because it renders earlier calls. Does not load torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from registry.catalog.generation import MAX_CALLS
from registry.catalog.json_bounds import MAX_BYTES, bounded_json


def _finite(number: str) -> float:
    """Return the number of a JSON text, or the nearest one that a float can hold."""
    return max(-sys.float_info.max, min(sys.float_info.max, float(number)))


_READER = json.JSONDecoder(parse_float=_finite)


@dataclass(frozen=True, slots=True)
class CallForm:
    """A family's form of tool calls.

    Calls stand between `opening` and `closing`; without these marks a call is the whole answer.
    `listed` calls are a JSON list. `arguments` is the key of a call's arguments. `token` is a
    special token that comes first and yields no text. `marker` identifies the form in a template.
    """

    marker: str
    opening: str = ""
    closing: str = ""
    listed: bool = False
    arguments: str = "arguments"
    token: str = ""


# For templates without a place for tools: `described_tools` puts them into the conversation.
DESCRIBED = CallForm("", "<tool_call>", "</tool_call>")
# The first form whose marker is in the template applies.
FORMS = (
    CallForm("<tool_call>[", "<tool_call>", "</tool_call>", listed=True),  # SmolLM2
    CallForm("<tool_call>", "<tool_call>", "</tool_call>"),  # Hermes, Qwen2.5, Qwen3, SmolLM3
    CallForm("[TOOL_CALLS]", listed=True, token="[TOOL_CALLS]"),  # Mistral  # noqa: S106
    CallForm('"parameters": ', arguments="parameters"),  # Llama 3
    DESCRIBED,
)
# Marks of calls in XML, whose arguments have no types.
_UNREADABLE = ("<function=", "<parameter=", "<｜tool")


def form_of(template: str | None) -> CallForm | None:
    """Return the form of a template's tool calls; None if it has no form that can be read."""
    if not template or any(each in template for each in _UNREADABLE):
        return None
    return next((form for form in FORMS if form.marker in template), None)


@dataclass(frozen=True, slots=True)
class Call:
    """One call; `arguments` is a JSON object as text."""

    name: str
    arguments: str


class CallReader:
    """Separates the calls in one answer from its text while the answer is generated.

    A call that names an unknown tool, or is not JSON within the bounds, counts as text.

    Args:
        form: The form of the model's calls.
        names: Names of the tools.
        single: The answer ends with its first call.
    """

    def __init__(self, form: CallForm, names: Collection[str], *, single: bool) -> None:
        self._form = form
        self._names = frozenset(names)
        self._single = single
        self._held = ""
        self._spaces = ""  # blank text, which is dropped before a call
        self._inside = False
        self.calls = 0

    @property
    def complete(self) -> bool:
        """Return whether the answer has reached its number of calls."""
        return self.calls >= (1 if self._single else MAX_CALLS)

    def push(self, text: str) -> list[str | Call]:
        """Take more text; returns the pieces that can be decided now, in order."""
        self._held += text
        pieces: list[str | Call] = []
        if not self._form.opening:
            start = self._held.lstrip()
            if not start or start[0] in "{[":
                return pieces
            text, self._held = self._held, ""
            return self._text(text)
        while not self.complete:
            if not self._inside and not self._open(pieces):
                return pieces
            end = self._held.find(self._form.closing)
            if end < 0:
                if len(self._held) > MAX_BYTES * 2:
                    pieces += self._text(self._form.opening + self._held)
                    self._held, self._inside = "", False
                return pieces
            whole, self._held = self._held[:end], self._held[end + len(self._form.closing) :]
            self._inside = False
            pieces += self._calls(whole, self._form.opening, self._form.closing)
        return pieces

    def flush(self) -> list[str | Call]:
        """Return the pieces still held back, after the last text."""
        rest, self._held = self._held, ""
        if self.complete:
            return []
        if self._inside:
            return self._calls(rest, self._form.opening)
        if not self._form.opening:
            return self._calls(rest)
        return self._text(rest, last=True)

    def _open(self, pieces: list[str | Call]) -> bool:
        """Add the text before the next call to `pieces`; returns whether a call begins."""
        start = self._held.find(self._form.opening)
        if start >= 0:
            pieces += self._text(self._held[:start])
            self._held = self._held[start + len(self._form.opening) :]
            self._inside = True
            return True
        keep = overlap(self._held, self._form.opening)
        pieces += self._text(self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]
        return False

    def _text(self, text: str, *, last: bool = False) -> list[str | Call]:
        text = self._spaces + text
        visible = text if last and not self.calls else text.rstrip()
        self._spaces = text[len(visible) :]
        return [visible] if visible else []

    def _calls(self, whole: str, before: str = "", after: str = "") -> list[str | Call]:
        try:
            calls = [self._call(each) for each in _values(whole)]
        except (ValueError, TypeError, KeyError, RecursionError):
            calls = []
        if not calls:
            return self._text(before + whole + after, last=True)
        self._spaces = ""
        calls = calls[: 1 if self._single else MAX_CALLS - self.calls]
        self.calls += len(calls)
        return list(calls)

    def _call(self, value: Any) -> Call:
        name, arguments = value["name"], value.get(self._form.arguments)
        if arguments is None:
            arguments = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if name not in self._names or not isinstance(arguments, dict):
            raise ValueError("not a call of a tool")
        return Call(name, json.dumps(bounded_json(arguments), ensure_ascii=False))


def _values(text: str) -> list[Any]:
    """Return the JSON objects of a text: a single one, a list, or several in sequence."""
    if len(text) > MAX_BYTES * 2:
        raise ValueError("too long")
    values: list[Any] = []
    at, text = 0, text.strip()
    while at < len(text):
        value, at = _READER.raw_decode(text, at)
        values += value if isinstance(value, list) else [value]
        while at < len(text) and text[at] in "; ,\r\n\t":
            at += 1
    return values


def overlap(text: str, mark: str) -> int:
    """Return the number of characters at the end of `text` that could begin `mark`."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-size:]):
            return size
    return 0
