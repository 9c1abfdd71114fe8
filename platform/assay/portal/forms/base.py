"""Bases of the portal's forms: they shape input; the services judge it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.validators import RegexValidator
from django.utils.functional import Promise

# Replacements of Django's own messages, by the code of the error.
_SENTENCES = {
    "invalid_choice": "This choice is not available. Choose another one.",
    "invalid_pk_value": "This choice is not available. Choose another one.",
    "max_decimal_places": "Use at most %(max)s decimal places.",
    "max_digits": "Use at most %(max)s digits.",
    "max_length": "Use at most %(limit_value)s characters. This has %(show_value)s.",
    "max_value": "Must be at most %(limit_value)s.",
    "min_length": "Use at least %(limit_value)s characters.",
    "min_value": "Must be at least %(limit_value)s.",
    "null_characters_not_allowed": "Contains an invalid character.",
    "step_size": "Must be a multiple of %(limit_value)s.",
}


def titled(choices: Any) -> list[tuple[str, str]]:
    """Return choices whose labels start with a capital."""
    return [(value, label[:1].upper() + label[1:]) for value, label in choices]


def unchosen(choices: Any) -> list[tuple[str, str]]:
    """Return the choices after an empty one, so that a person must choose."""
    return [("", "Choose…"), *choices]


class TablerForm(forms.Form):
    """A form that gives every widget Tabler's class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            widget = field.widget
            if isinstance(widget, (forms.CheckboxInput, forms.CheckboxSelectMultiple)):
                widget.attrs.setdefault("class", "form-check-input")
            elif isinstance(widget, forms.Select):
                widget.attrs.setdefault("class", "form-select")
            else:
                widget.attrs.setdefault("class", "form-control")

    def add_error(self, field: str | None, error: Any) -> None:
        """Add an error with our sentence in place of Django's."""
        for each in getattr(error, "error_list", ()):
            # Django's own messages are lazy translations; a field's `error_messages` are not.
            if isinstance(each.message, Promise):
                each.message = _SENTENCES.get(each.code, each.message)
        super().add_error(field, error)


class NameField(forms.SlugField):
    """A name in addresses and requests. The service checks the whole rule."""

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
