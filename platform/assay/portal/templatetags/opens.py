"""Filters that depend on the viewer: permission to open an object, and names of people."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django import template
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from governance.people.mentions import people_mentioned, people_names, with_names
from governance.permissions import Action
from governance.policy.context import base_context
from governance.policy.engine import PolicySnapshot, Resource, decide
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.reviews.models import Review
from governance.reviews.selectors import review_resource
from registry.releases.models import Release
from registry.resources import release_resource, version_resource
from registry.versions.models import ModelVersion

register = template.Library()


@dataclass(frozen=True)
class Viewer:
    """The person who views a page, and the policy in force, read once for the page."""

    actor: Principal
    _names: dict[int, str] = field(default_factory=dict, compare=False)

    @cached_property
    def policy(self) -> PolicySnapshot:
        return active_policy()

    def names(self, people: set[int]) -> dict[int, str]:
        """Return the names of people by ID, each read once for the page."""
        if unread := people - self._names.keys():
            names = people_names(unread)
            self._names.update({pk: names.get(pk, f"person {pk}") for pk in unread})
        return self._names


@register.filter
def opens_for(thing: Any, viewer: Viewer) -> bool:
    """Return true if the policy lets this person see a version, release or review."""
    required = _required(thing)
    if required is None:
        return False
    action, resource = required
    return decide(viewer.policy, viewer.actor, action, resource, base_context()).allowed


@register.filter
def named(text: Any, viewer: object) -> Any:
    """Replace mentions such as `person 3` by names."""
    if not isinstance(text, str) or not isinstance(viewer, Viewer):
        return text
    if not (people := people_mentioned(text)):
        return text
    names = viewer.names(people)
    if isinstance(text, SafeString):
        html = with_names(text, {person: escape(names[person]) for person in people})
        return mark_safe(html)  # noqa: S308 (safe before; the names are escaped)
    return with_names(text, names)


def _required(thing: Any) -> tuple[Action, Resource] | None:
    if isinstance(thing, ModelVersion):
        return Action.MODEL_VIEW, version_resource(thing)
    if isinstance(thing, Release):
        return Action.RELEASE_VIEW, release_resource(thing)
    if isinstance(thing, Review):
        return Action.RELEASE_VIEW, review_resource(thing)
    return None
