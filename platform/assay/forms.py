"""Base of the forms of pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.functional import Promise

# Messages that replace Django's, by error code.
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
        """Add an error, with Assay's message in place of Django's."""
        for each in getattr(error, "error_list", ()):
            # Django's own messages are lazy translations; a field's `error_messages` are not.
            if isinstance(each.message, Promise):
                each.message = _SENTENCES.get(each.code, each.message)
        super().add_error(field, error)
