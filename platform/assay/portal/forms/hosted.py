"""The form of a hosted model. It names a credential, and has no field for a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.base import SlugChoice, titled, unchosen
from governance.quotas.kinds import MICRO
from registry.catalog.hosted import (
    MAX_URL,
    OPERATIONS,
    PARAMETER_TITLES,
    WIRE_SHAPE_TITLES,
    Operation,
)
from registry.catalog.inputs import MAX_TEXTS
from registry.datasets.models import Classification

# Fields that the form and the description call the same.
_SAME = (
    "provider",
    "shape",
    "operation",
    "base_url",
    "model",
    "fingerprint",
    "region",
    "credential",
    "parameters",
    "context_tokens",
    "max_tokens",
    "dimensions",
    "max_inputs",
    "cleared_for",
)
# Numbers that only some operations have.
_NUMBERS = ("context_tokens", "max_tokens", "dimensions", "max_inputs")
_PRICES = ("prompt", "completion", "unit")
_TERMS = ("title", "url", "sha256", "retention_days", "trains_on_content")


def _price(label: str) -> forms.DecimalField:
    return forms.DecimalField(
        label=label, min_value=0, max_digits=12, decimal_places=6, required=False
    )


def _number(most: int, label: str, help_text: str) -> forms.IntegerField:
    return forms.IntegerField(
        min_value=1, max_value=most, required=False, label=label, help_text=help_text
    )


class HostedForm(TablerForm):
    """The description of a provider's model, for intake."""

    of_model = SlugChoice(queryset=None, empty_label="Choose…", label="Model")
    provider = forms.CharField(max_length=100, help_text="Name to show, such as OpenAI.")
    shape = forms.ChoiceField(
        choices=unchosen(WIRE_SHAPE_TITLES.items()),
        label="API format",
        help_text="Azure OpenAI, Mistral and vLLM have the shape of OpenAI.",
    )
    operation = forms.ChoiceField(
        choices=[(name, rules.title) for name, rules in OPERATIONS.items()],
        initial=Operation.CHAT,
        help_text="Kind of the provider's endpoint. It must fit the task of the model.",
    )
    base_url = forms.CharField(
        max_length=MAX_URL,
        label="Base URL",
        help_text="Such as https://api.openai.com/v1.",
        widget=forms.TextInput(attrs={"inputmode": "url", "spellcheck": "false"}),
    )
    model = forms.CharField(
        max_length=200,
        label="Provider's model name",
        help_text="Use a dated snapshot if the provider has snapshots.",
    )
    answers_as = forms.CharField(
        required=False,
        max_length=2_100,
        label="Other model names in answers",
        help_text="One name per line. Answers that state any other name are rejected.",
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    fingerprint = forms.CharField(
        required=False,
        max_length=100,
        help_text="Fingerprint that answers must state. Leave empty for any.",
    )
    region = forms.CharField(
        max_length=60, help_text="Place of processing, as the provider names it."
    )
    credential = forms.CharField(
        required=False,
        max_length=60,
        help_text="Name of the department's credential, not the secret. Leave empty for none.",
        widget=forms.TextInput(attrs={"list": "credential-names", "spellcheck": "false"}),
    )
    shutdown_on = forms.DateField(
        required=False,
        label="Shutdown date",
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="Day on which the provider ends the model. Approvals end then at the latest.",
    )
    parameters = forms.MultipleChoiceField(
        required=False,
        choices=PARAMETER_TITLES.items(),
        widget=forms.CheckboxSelectMultiple,
        label="Settings that callers may use",
        help_text="Requests with any other setting are refused.",
    )
    context_tokens = _number(100_000_000, "Context length in tokens", "For text and embeddings.")
    max_tokens = _number(1_000_000, "Longest answer in tokens", "For text.")
    dimensions = _number(65_536, "Length of vectors", "For embeddings.")
    max_inputs = _number(MAX_TEXTS, "Maximum texts in a request", "For embeddings.")
    prompt_price = _price("Price per million prompt tokens")
    completion_price = _price("Price per million completion tokens")
    unit_price = _price("Price per second of audio, character or image")
    voices = forms.CharField(
        required=False,
        max_length=5_050,
        help_text="For speech. One voice per line. The first one is the default.",
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    cleared_for = forms.ChoiceField(
        choices=titled(Classification.choices),
        label="Highest classification of evaluation data",
        help_text="Evaluations send no data with a higher classification to the provider.",
    )
    terms_title = forms.CharField(max_length=200, label="Title of the terms")
    terms_url = forms.CharField(required=False, max_length=MAX_URL, label="URL of the terms")
    terms_sha256 = forms.CharField(
        max_length=64,
        label="SHA-256 of the terms",
        help_text="Digest of the document with the terms. Keep the document.",
    )
    terms_retention_days = forms.IntegerField(
        min_value=0, max_value=3_660, label="Days that the provider keeps content"
    )
    terms_subprocessors = forms.CharField(
        required=False,
        max_length=5_050,
        label="Subprocessors",
        help_text="One name per line.",
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    terms_trains_on_content = forms.BooleanField(
        required=False, label="The provider trains on content"
    )

    def __init__(self, *args: Any, models: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["of_model"].queryset = models  # type: ignore[attr-defined]


def description_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form's values as the fields of a `HostedDescription`."""
    ends = values["shutdown_on"]
    return {
        **{name: values[name] for name in _SAME},
        **{name: values[name] or 0 for name in _NUMBERS},
        "answers_as": _lines(values["answers_as"]),
        "voices": _lines(values["voices"]),
        "shutdown_on": None if ends is None else ends.isoformat(),
        "prices": {name: int((values[f"{name}_price"] or 0) * MICRO) for name in _PRICES},
        "terms": {
            **{name: values[f"terms_{name}"] for name in _TERMS},
            "subprocessors": _lines(values["terms_subprocessors"]),
        },
    }


def initial_of(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description as the form's initial values."""
    terms = description["terms"]
    return {
        "operation": Operation.CHAT,
        **{name: description[name] for name in _SAME if name in description},
        **{name: description.get(name) or None for name in _NUMBERS},
        "answers_as": "\n".join(description["answers_as"]),
        "voices": "\n".join(description.get("voices", ())),
        "shutdown_on": description["shutdown_on"],
        **{f"{name}_price": price / MICRO for name, price in description["prices"].items()},
        **{f"terms_{name}": terms[name] for name in _TERMS},
        "terms_subprocessors": "\n".join(terms["subprocessors"]),
    }


def form_fields(fields: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return errors of a description's fields by the names of the form's fields."""
    return {_form_field(name): sentences for name, sentences in fields.items()}


def _form_field(name: str) -> str:
    section, _, rest = name.partition(".")
    part = rest.partition(".")[0]
    if section == "terms" and part:
        return f"terms_{part}"
    if section == "prices" and part:
        return f"{part}_price"
    return section


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
