"""Queries for intakes."""

from __future__ import annotations

from django.db.models import QuerySet

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from registry.intake.models import Intake


def intakes_visible_to(actor: Principal) -> QuerySet[Intake]:
    """Return the intakes that `actor` may see, with the related rows that a list shows."""
    rows = Intake.objects.select_related(
        "model__department", "base__model", "version", "submitted_by", "signed_by"
    )
    return visible_to(actor, Action.INTAKE_VIEW, rows, resource_type="intake")


def intake_get(*, actor: Principal, id: int) -> Intake:  # noqa: A002
    """Return an intake. Raises NotFound if it does not exist, or `actor` may not see it."""
    intake = intakes_visible_to(actor).filter(pk=id).first()
    if intake is None:
        raise NotFound(f"Intake {id} does not exist, or you may not see it.")
    return intake
