"""Bases of the portal's forms: they shape input; the services judge it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.validators import RegexValidator

from assay.forms import TablerForm


def titled(choices: Any) -> list[tuple[str, str]]:
    """Return choices whose labels start with a capital."""
    return [(value, label[:1].upper() + label[1:]) for value, label in choices]


def unchosen(choices: Any) -> list[tuple[str, str]]:
    """Return the choices after an empty one, so that a person must choose."""
    return [("", "Choose…"), *choices]


class NameField(forms.SlugField):
    """A name that URLs and requests contain. The service checks all of its rules."""

    default_validators = [  # noqa: RUF012 (as Django declares it)
        RegexValidator(r"\A[a-z0-9-]+\Z", "Use lowercase letters, digits and hyphens.")
    ]

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("help_text", "Lowercase letters, digits and hyphens.")
        super().__init__(**kwargs)


if TYPE_CHECKING:
    ObjectChoice = forms.ModelChoiceField[Any]
else:
    ObjectChoice = forms.ModelChoiceField


class SlugChoice(ObjectChoice):
    """A choice of objects by their names."""

    def label_from_instance(self, obj: Any) -> str:
        return getattr(obj, "name", None) or str(obj)


class DepartmentScoped(TablerForm):
    """A form for a new object in one of the departments that the actor may choose."""

    department = SlugChoice(queryset=None)

    def __init__(self, *args: Any, departments: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choice = self.fields["department"]
        choice.queryset = departments  # type: ignore[attr-defined]
        # A single department is selected; of several, a person must choose one.
        several = departments.count() > 1
        choice.empty_label = "Choose…" if several else None  # type: ignore[attr-defined]
