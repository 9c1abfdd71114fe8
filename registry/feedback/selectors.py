"""Reads of feedback."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, QuerySet

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from registry.datasets.models import DatasetVersion
from registry.feedback.models import Feedback, FeedbackState
from registry.versions.models import ModelVersion
from registry.versions.selectors import versions_visible_to


def feedback_visible_to(actor: Principal) -> QuerySet[Feedback]:
    """Return the feedback that `actor` may see, the newest first."""
    rows = Feedback.objects.select_related("department", "person", "reviewed_by")
    return visible_to(actor, Action.FEEDBACK_VIEW, rows, resource_type="feedback")


def feedback_get(*, actor: Principal, id: int) -> Feedback:  # noqa: A002
    """Return feedback; raise NotFound if it does not exist or `actor` may not see it."""
    feedback = feedback_visible_to(actor).filter(pk=id).first()
    if feedback is None:
        raise NotFound(f"Feedback {id} does not exist, or you may not see it.")
    return feedback


def feedback_unused(actor: Principal) -> QuerySet[Feedback]:
    """Return accepted feedback that no dataset version holds."""
    used = DatasetVersion.feedback.through.objects.filter(feedback=OuterRef("pk"))
    return feedback_visible_to(actor).filter(~Exists(used), state=FeedbackState.ACCEPTED)


def version_taught(actor: Principal, data: DatasetVersion) -> ModelVersion | None:
    """Return the newest version that the feedback in `data` is about, as the one to train again.
    It was trained here, and `actor` may see it."""
    if not data.feedback_count:
        return None
    version_ids = data.feedback.values("version")
    rows = versions_visible_to(actor).filter(pk__in=version_ids, base__isnull=False)
    return rows.order_by("-pk").first()
