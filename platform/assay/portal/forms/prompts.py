"""The form of a prompt version. Its variables are the placeholders in its texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import QueryDict

from assay.forms import TablerForm
from registry.catalog.prompt import INPUT, MAX_EXAMPLES, MAX_STOPS, placeholders
from registry.versions.models import ModelVersion
from workers.jobs.prompts import NOTE_MAX

SETTINGS = ("temperature", "top_p", "max_tokens", "stop")
# Empty rows of examples that the form adds.
SPARE = 2
_ESCAPE = re.compile(r"\\([n\\])")


class PromptForm(TablerForm):
    """All fields except variables and examples, which have their own rows."""

    base_version: forms.ModelChoiceField[Any] = forms.ModelChoiceField(
        queryset=None, empty_label=None, label="Base version"
    )
    system = forms.CharField(
        required=False,
        max_length=16_000,
        strip=False,
        label="System message",
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "true"}),
        help_text="Write {{name}} where the caller's value goes.",
    )
    template = forms.CharField(
        max_length=8_000,
        strip=False,
        initial="{{input}}",
        label="Template of each message",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Wraps each message of the user, which is {{input}}.",
    )
    temperature = forms.FloatField(required=False, min_value=0, max_value=2)
    top_p = forms.FloatField(required=False, min_value=0, max_value=1, label="Top p")
    max_tokens = forms.IntegerField(
        required=False, min_value=1, max_value=32_768, label="Maximum tokens"
    )
    stop = forms.CharField(
        required=False,
        max_length=1_000,
        strip=False,
        label="Stop texts",
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=f"One per line, {MAX_STOPS} at most; \\n stands for a line end, \\\\ for \\.",
    )
    fixed = forms.MultipleChoiceField(
        required=False,
        choices=[(name, name.replace("_", " ").capitalize()) for name in SETTINGS],
        widget=forms.CheckboxSelectMultiple,
        label="Callers cannot change",
    )
    note = forms.CharField(
        required=False,
        max_length=NOTE_MAX,
        label="Notes on this version",
        widget=forms.Textarea(attrs={"rows": 2}),
    )

    def __init__(self, *args: Any, bases: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("temperature", "top_p"):
            self.fields[name].widget.attrs["step"] = "any"
        self.fields["base_version"].queryset = bases  # type: ignore[attr-defined]


def initial_of(version: ModelVersion) -> dict[str, Any]:
    """Return a prompt version as the form's initial values."""
    document = version.parameters
    decoding = document["decoding"]
    return {
        "base_version": version.base_id,
        "system": document["system"],
        "template": document["template"],
        **{name: decoding[name] for name in SETTINGS if name != "stop"},
        "stop": "\n".join(map(_escaped, decoding["stop"])),
        "fixed": decoding["fixed"],
    }


def _escaped(stop: str) -> str:
    return stop.replace("\\", "\\\\").replace("\n", "\\n")


def _unescaped(line: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else "\\", line)


def document_of(values: Mapping[str, Any], posted: QueryDict) -> dict[str, Any]:
    """Return the form's document; `posted` has the rows of variables and examples."""
    decoding = {name: values[name] for name in SETTINGS if name != "stop"}
    stops = values["stop"].replace("\r\n", "\n").split("\n")
    decoding["stop"] = [_unescaped(each) for each in stops if each]
    decoding["fixed"] = values["fixed"]
    return {
        "system": values["system"],
        "template": values["template"],
        "variables": [
            {
                "name": row["name"],
                "description": row["description"],
                "default": row["default"] if row["optional"] else None,
                "max_length": int(row["max_length"]) if row["max_length"].isdecimal() else 0,
            }
            for row in variable_rows(values["system"], values["template"], posted)
        ],
        "examples": [row for row in example_rows(posted) if row["user"] or row["assistant"]],
        "decoding": decoding,
    }


def variable_rows(system: str, template: str, posted: QueryDict) -> list[dict[str, Any]]:
    """Return a row for each placeholder of the texts, with its posted values."""
    names = dict.fromkeys([*placeholders(system), *placeholders(template)])
    return [
        {
            "name": name,
            "description": posted.get(f"v_{name}_description", "")[:1_000],
            "optional": f"v_{name}_optional" in posted,
            "default": posted.get(f"v_{name}_default", "").replace("\r\n", "\n")[:10_000],
            "max_length": posted.get(f"v_{name}_max_length", "1000")[:9],
        }
        for name in names
        if name != INPUT
    ]


def stored_variables(version: ModelVersion) -> list[dict[str, Any]]:
    """Return the rows of a prompt version's variables."""
    return [
        {**each, "optional": each["default"] is not None, "default": each["default"] or ""}
        for each in version.parameters["variables"]
    ]


def example_rows(posted: QueryDict) -> list[dict[str, str]]:
    """Return the posted examples, including empty ones."""
    users, answers = posted.getlist("example_user"), posted.getlist("example_assistant")
    return [
        {"user": user.replace("\r\n", "\n"), "assistant": answer.replace("\r\n", "\n")}
        for user, answer in list(zip(users, answers, strict=False))[: MAX_EXAMPLES + SPARE]
    ]
