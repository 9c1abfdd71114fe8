"""Reads of drafts, for people who may submit releases of the draft's department."""

from __future__ import annotations

from django.db.models import QuerySet

from governance.errors import NotFound
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.context import with_base
from governance.policy.engine import Resource, decide
from governance.policy.services import active_policy
from governance.principals import Principal
from registry.releases.drafts.models import ReleaseDraft


def release_drafts_visible_to(actor: Principal) -> QuerySet[ReleaseDraft]:
    """Return drafts of the departments in which `actor` may submit releases, last changed first."""
    policy, moment = active_policy(), with_base(None)
    allowed = [
        pk
        for pk, slug in Department.objects.values_list("pk", "slug")
        if decide(
            policy, actor, Action.RELEASE_SUBMIT, Resource("release", department=slug), moment
        ).allowed
    ]
    return ReleaseDraft.objects.filter(department__in=allowed).select_related(
        "version__model__department", "department", "created_by"
    )


def release_draft_get(*, actor: Principal, id: int) -> ReleaseDraft:  # noqa: A002
    """Return a draft; raise NotFound if it does not exist or `actor` may not see it."""
    draft = release_drafts_visible_to(actor).filter(pk=id).first()
    if draft is None:
        raise NotFound(f"Release draft {id} does not exist, or you may not see it.")
    return draft
