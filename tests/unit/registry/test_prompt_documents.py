"""Prompt documents: what they may hold, and how requests are filled in."""

from __future__ import annotations

from typing import Any

import pytest

from governance.errors import InvalidInput
from registry.catalog.generation import GenerationInputs, SamplingOptions, Tool
from registry.catalog.prompt import MAX_BYTES, PromptDocument
from registry.catalog.requests import RequestInvalid

DOCUMENT: dict[str, Any] = {
    "system": "You answer for {{team}} in {{ language }}.",
    "template": "Question: {{input}}\nAnswer in {{language}}:",
    "variables": [
        {"name": "team", "description": "Whose desk it is", "max_length": 10},
        {"name": "language", "default": "English"},
    ],
    "examples": [{"user": "Who?", "assistant": "Me."}],
    "decoding": {"temperature": 0.2, "max_tokens": 64, "stop": ["\n"], "fixed": ["temperature"]},
}


def asked(text: str = "Hello", **variables: str) -> GenerationInputs:
    return GenerationInputs.model_validate(
        {"messages": [{"role": "user", "content": text}], "variables": variables or None}
    )


def filled(inputs: GenerationInputs) -> list[tuple[str, str]]:
    made = PromptDocument.read(DOCUMENT).filled(inputs)
    assert made.variables is None
    return [(message.role, message.text) for message in made.messages or ()]


def test_a_request_is_filled_in_with_system_message_examples_and_template() -> None:
    assert filled(asked(team="Care")) == [
        ("system", "You answer for Care in English."),
        ("user", "Question: Who?\nAnswer in English:"),
        ("assistant", "Me."),
        ("user", "Question: Hello\nAnswer in English:"),
    ]


def test_values_and_messages_are_never_read_as_templates() -> None:
    made = filled(asked("{{team}}", team="{{input}}", language="{{team}}"))
    assert made[0] == ("system", "You answer for {{input}} in {{team}}.")
    assert made[-1] == ("user", "Question: {{team}}\nAnswer in {{team}}:")


@pytest.mark.parametrize(
    ("inputs", "code", "words"),
    [
        (asked(), "missing_variable", "needs the variable team"),
        (asked(team="x", tone="y"), "unknown_variable", "has no variable tone"),
        (asked(team="x" * 11), "variable_too_long", "at most 10"),
        (GenerationInputs(prompt="x"), "invalid_value", "send messages"),
        (
            GenerationInputs.model_validate(
                {"messages": [{"role": "system", "content": "x"}], "variables": {"team": "x"}}
            ),
            "invalid_value",
            "its own system message",
        ),
        (
            asked(team="x").model_copy(update={"tools": [Tool(name="find")]}),
            "invalid_value",
            "leave tools out",
        ),
    ],
)
def test_what_does_not_fit_the_prompt_is_refused_by_name(
    inputs: GenerationInputs, code: str, words: str
) -> None:
    with pytest.raises(RequestInvalid, match=words) as refused:
        PromptDocument.read(DOCUMENT).filled(inputs)
    assert refused.value.code == code


def test_settings_fill_what_the_caller_leaves_open_and_fixed_ones_stay() -> None:
    document = PromptDocument.read(DOCUMENT)
    _, options = document.applied(
        asked(team="x"), SamplingOptions(max_tokens=9, stated=["max_tokens"])
    )
    assert (options.temperature, options.max_tokens, options.stop) == (0.2, 9, ["\n"])
    with pytest.raises(RequestInvalid, match=r"fixes temperature at 0\.2") as refused:
        document.applied(asked(team="x"), SamplingOptions(temperature=1.0, stated=["temperature"]))
    assert refused.value.code == "setting_fixed"
    document.applied(asked(team="x"), SamplingOptions(temperature=0.2, stated=["temperature"]))


def test_a_value_that_would_fill_the_memory_is_refused_before_it_is_filled_in() -> None:
    document = PromptDocument.read(
        {
            "system": "{{a}}" * 3_000,
            "variables": [{"name": "a", "max_length": 20_000}],
        }
    )
    with pytest.raises(RequestInvalid, match="more than 1,000,000 bytes"):
        document.filled(asked(a="x" * 20_000))
    assert document.added_tokens(asked(a="x" * 20_000)) == 20_000_001


def test_the_gateways_estimate_covers_what_filling_in_adds() -> None:
    document, inputs = PromptDocument.read(DOCUMENT), asked(team="é" * 10)
    added = sum(len(text.encode()) for _, text in filled(inputs)) - len("Hello")
    assert document.added_tokens(inputs) >= added // 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"system": "{{tone}} {{team}}"}, "{{tone}} is used but not declared"),
        ({"system": "", "template": "{{input}} {{language}}"}, "team is declared but not used"),
        ({"template": "{{language}}"}, "{{input}} must occur in the template once"),
        ({"system": "{{input}} {{team}}"}, "{{input}} must occur in the template once"),
        ({"template": "{{input}} {{language}}\u202e"}, "cannot be seen"),
        ({"decoding": {"fixed": ["top_p"]}}, "top_p has no value to fix"),
        ({"variables": [{"name": "input"}]}, "choose another name"),
        ({"variables": [{"name": "team"}, {"name": "team"}]}, "declared twice"),
        ({"tools": []}, "tools is unknown"),
        ({"examples": [{"user": "x" * 8000, "assistant": "y" * 8000}] * 3}, f"{MAX_BYTES:,} bytes"),
    ],
)
def test_a_document_that_makes_no_sense_is_refused_with_its_place(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        PromptDocument.read({**DOCUMENT, **changes})
    assert words in str(refused.value.message)
    assert refused.value.fields


@pytest.mark.parametrize(
    "text",
    [
        *(f"a{sign}b" for sign in "\u200b\u200c\u200d\u200e\u00ad\u061c\u2028\u2029\x07\x9f\ufff9"),
        *(f"a{sign}b" for sign in "\ufe0f\U000e0100\U000e01ef\U000e0041\u115f\u1160\u3164\u2800"),
        "☀\ufe0f\ufe0f",
        "می\u200c\u200d\u200cخوام",
        "\u200dمی",
    ],
)
def test_text_that_a_reviewer_cannot_see_is_refused(text: str) -> None:
    for changes in ({"system": text}, {"examples": [{"user": "x", "assistant": text}]}):
        with pytest.raises(InvalidInput, match="cannot be seen"):
            PromptDocument.read(changes)


@pytest.mark.parametrize(
    "text", ["می\u200cخوام", "क्\u200dष", "☀\ufe0f", "1\ufe0f\u20e3", "a\tb\r\nc"]
)
def test_joiners_and_selectors_stay_where_scripts_and_emoji_need_them(text: str) -> None:
    assert PromptDocument.read({"system": text}).system == text.replace("\r\n", "\n")
    family = "👩🏽\u200d🚒 ❤\ufe0f\u200d🔥"
    assert PromptDocument.read({"system": family}).system == family


def test_equal_documents_have_equal_bytes() -> None:
    document = PromptDocument.read(DOCUMENT)
    again = PromptDocument.read(document.canonical())
    assert again == document
    assert again.canonical() == document.canonical()
    line_ends = PromptDocument.read({"system": "a\r\nb"})
    assert line_ends.canonical() == PromptDocument.read({"system": "a\nb"}).canonical()
