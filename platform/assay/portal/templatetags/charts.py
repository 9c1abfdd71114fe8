"""Tag for charts, which a script draws."""

from __future__ import annotations

import json

from django import template
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.safestring import mark_safe

register = template.Library()
# Characters of JSON that would end an element or start an entity.
_JSON_ESCAPES = str.maketrans({"<": "\\u003C", ">": "\\u003E", "&": "\\u0026"})


@register.inclusion_tag("portal/parts/chart.html")
def chart(name: str, label: str, spec: dict[str, object], css: str = "") -> dict[str, object]:
    """Return a chart. `spec` is as in `series.py`, `label` is for assistive technology.

    The data are in a hidden element, because htmx removes scripts from the HTML that it loads.
    Quotes are not escaped: a long curve has thousands of them.
    """
    data = json.dumps(spec, cls=DjangoJSONEncoder).translate(_JSON_ESCAPES)
    return {"name": name, "label": label, "css": css, "data": mark_safe(data)}  # noqa: S308
