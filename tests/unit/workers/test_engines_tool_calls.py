"""Tool calls told from text, in each family's form, however the text is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest

from workers.engines.tool_calls import DESCRIBED, FORMS, Call, CallReader, form_of

SMOL, HERMES, MISTRAL, LLAMA, _ = FORMS
NAMES = ("f", "g")


def read(form: int, text: str, *, single: bool = False, size: int = 1) -> list[str | Call]:
    """Return what a reader tells of a text that comes in pieces, texts joined."""
    reader = CallReader(FORMS[form], NAMES, single=single)
    cuts = [*range(0, len(text), size), len(text)]
    found = [each for start, end in pairwise(cuts) for each in reader.push(text[start:end])]
    joined: list[str | Call] = []
    for each in [*found, *reader.flush()]:
        if isinstance(each, str) and joined and isinstance(joined[-1], str):
            joined[-1] += each
        else:
            joined.append(each)
    return joined


ONE = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
TWO = '\n<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
F, G = Call("f", '{"a": 1}'), Call("g", "{}")


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("form", "text", "found"),
    [
        (1, ONE, [F]),
        (1, "I look. " + ONE + TWO, ["I look.", F, G]),
        (1, "a < b and <tool", ["a < b and <tool"]),
        (1, "<tool_call>{no}</tool_call>!", ["<tool_call>{no}</tool_call>!"]),
        (1, ONE.replace('"f"', '"unknown"'), [ONE.replace('"f"', '"unknown"')]),
        (1, ONE[:-12], [F]),
        (0, '<tool_call>[{"name": "f", "arguments": {"a": 1}}, {"name": "g"}]</tool_call>', [F, G]),
        (2, '[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]', [F, G]),
        (3, '{"name": "f", "parameters": {"a": 1}}', [F]),
        (3, '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}', [F, G]),
        (3, '{"a": 1}', ['{"a": 1}']),
        (3, "Plain text {", ["Plain text {"]),
        (3, '{"name": "f", "parameters": ' + "[" * 5000, None),
    ],
)  # fmt: skip
def test_calls_are_told_from_text_however_it_is_cut(
    form: int, text: str, found: list[str | Call] | None, size: int
) -> None:
    assert read(form, text, size=size) == ([text] if found is None else found)


def test_a_reader_of_single_calls_ends_with_the_first() -> None:
    assert read(1, ONE + TWO, single=True) == [F]


def test_a_number_that_no_float_holds_is_the_nearest_one() -> None:
    """Masks allow such numbers, as JSON does."""
    (call,) = read(1, ONE.replace("1", "-9E999"))
    assert isinstance(call, Call)
    assert call.arguments == '{"a": -1.7976931348623157e+308}'


def test_the_form_follows_from_the_template() -> None:
    assert form_of('... <tool_call>\\n{"name": ...') is HERMES
    assert form_of("<tool_call>[{...}]</tool_call>") is SMOL
    assert form_of("{{ '[TOOL_CALLS]' }}") is MISTRAL
    assert form_of('{"name": ..., "parameters": {...}}') is LLAMA
    assert form_of("<tool_call>\n<function=x>") is None
    assert form_of("{{ message.content }}") is DESCRIBED
    assert form_of(None) is None
