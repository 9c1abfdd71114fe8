"""Bases of the portal's forms: they shape input; the services judge it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms


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
        # People of one department have no choice; others must make it.
        several = departments.count() > 1
        choice.empty_label = "Choose…" if several else None  # type: ignore[attr-defined]
