"""Template filters and tags of the portal, built in everywhere."""

from __future__ import annotations

from django import template

register = template.Library()
