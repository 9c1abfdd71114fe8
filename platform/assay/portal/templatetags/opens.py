"""Filter that tells if a person may open an object's page, so that pages show no dead links."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django import template

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

    @cached_property
    def policy(self) -> PolicySnapshot:
        return active_policy()


@register.filter
def opens_for(thing: Any, viewer: Viewer) -> bool:
    """Return true if the policy lets this person see a version, release or review."""
    required = _required(thing)
    if required is None:
        return False
    action, resource = required
    return decide(viewer.policy, viewer.actor, action, resource, base_context()).allowed


def _required(thing: Any) -> tuple[Action, Resource] | None:
    if isinstance(thing, ModelVersion):
        return Action.MODEL_VIEW, version_resource(thing)
    if isinstance(thing, Release):
        return Action.RELEASE_VIEW, release_resource(thing)
    if isinstance(thing, Review):
        return Action.RELEASE_VIEW, review_resource(thing)
    return None
