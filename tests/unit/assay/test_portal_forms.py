"""Messages of the portal's forms."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from django import forms

import assay.portal.forms
import assay.portal.views
from assay.forms import TablerForm
from assay.portal.forms.base import NameField


class Sample(TablerForm):
    name = NameField(max_length=9)
    count = forms.IntegerField(min_value=1, max_value=1_000)
    text = forms.CharField(min_length=2, max_length=3)
    share = forms.DecimalField(max_digits=4, decimal_places=2)
    color = forms.ChoiceField(choices=[("red", "Red")])
    kind = forms.ChoiceField(choices=[("a", "A")], error_messages={"invalid_choice": "Only A."})


VALID = {"name": "a-1", "count": 1, "text": "abc", "share": "0.25", "color": "red", "kind": "a"}


def every_form() -> Iterator[type[forms.Form]]:
    for package in (assay.portal.forms, assay.portal.views):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    waiting = [TablerForm]
    while waiting:
        form = waiting.pop()
        waiting += form.__subclasses__()
        yield form


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("name", "Not A Slug", "Use lowercase letters, digits and hyphens."),
        ("name", "under_score", "Use lowercase letters, digits and hyphens."),
        ("name", "", "This field is required."),
        ("name", "abcdefghij", "Use at most 9 characters. This has 10."),
        ("count", 0, "Must be at least 1."),
        ("count", 1_001, "Must be at most 1000."),
        ("text", "a", "Use at least 2 characters."),
        ("share", "0.255", "Use at most 2 decimal places."),
        ("share", "100.25", "Use at most 4 digits."),
        ("color", "blue", "This choice is not available. Choose another one."),
        ("kind", "b", "Only A."),
    ],
)
def test_a_form_states_its_rules_in_plain_words(field: str, value: object, sentence: str) -> None:
    assert Sample(VALID).is_valid()
    form = Sample({**VALID, field: value})
    assert sentence in form.errors[field]


def test_every_name_in_the_portal_has_the_same_rule() -> None:
    fields = [
        (form.__name__, name, field)
        for form in every_form()
        for name, field in form.base_fields.items()
    ]
    assert len(fields) > 100
    django_rule = [(form, name) for form, name, field in fields if type(field) is forms.SlugField]
    assert django_rule == []
