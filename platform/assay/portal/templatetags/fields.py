"""Tags for the fields of forms and their errors."""

from __future__ import annotations

from typing import Any

from django import template
from django.forms import BaseForm
from django.template import Context

from assay.portal.http import posted
from governance.errors import DomainError

register = template.Library()


@register.inclusion_tag("portal/parts/field.html")
def field(bound: Any, label: str = "") -> dict[str, Any]:
    """Return one form field with label, help and errors, linked for assistive technology."""
    return {
        "field": bound,
        "label": label or bound.label,
        "kind": bound.field.widget.__class__.__name__,
    }


@register.simple_tag(takes_context=True)
def unmarked_errors(context: Context, error: DomainError) -> dict[str, list[str]]:
    """Return the errors of fields that neither the error's message nor a form on the page shows."""
    values: list[Any] = list(context.flatten().values())
    marked = {
        name
        for form in values
        if isinstance(form, BaseForm) and form.is_bound
        for name in form.errors
    }
    errors = {
        name: [each for each in sentences if each != error.message]
        for name, sentences in error.fields.items()
        if name not in marked
    }
    return {name: sentences for name, sentences in errors.items() if sentences}


@register.simple_tag(takes_context=True)
def typed(context: Context, name: str, page: str, key: object = None) -> str:
    """Return the text of a field of a form that was sent to `page` and refused; else nothing.

    With `key`, only if it is the last value in the form's address: one of several like forms.
    """
    request = context["request"]
    fields = posted(request, page)
    if fields is None:
        return ""
    if key is not None and str(key) != str([*request.resolver_match.kwargs.values()][-1]):
        return ""
    return fields.get(name, "")
