"""The checklist next to the tabs: each item with its evidence and the possible actions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from assay.portal.reviewing.parts import Page
from governance.errors import DomainError
from governance.people.proof import CODE
from governance.permissions import Action
from governance.reviews.models import MET_STATES, ChecklistItem, ChecklistState
from governance.reviews.waivers.models import Waiver, WaiverState
from governance.reviews.waivers.selectors import decision_obstacle, item_obstacle
from governance.reviews.waivers.services import LONGEST


@dataclass(frozen=True, slots=True)
class ChecklistRow:
    """One item and its newest waiver. `asks` and `decides` are true if the person is offered the
    action; `not_asked` and `not_decided` say why it is disabled; `unproved` is true if only a
    second factor is missing.
    """

    item: ChecklistItem
    waiver: Waiver | None
    attests: bool
    asks: bool
    not_asked: str
    decides: bool
    not_decided: str
    unproved: bool
    withdraws: bool
    revokes: bool

    @property
    def in_force(self) -> bool:
        """True while a waiver excuses the item."""
        waiver = self.waiver
        return (
            waiver is not None
            and waiver.state == WaiverState.GRANTED
            and waiver.expires_at > timezone.now()
        )

    @property
    def passed_by_machine(self) -> bool:
        """True for a passed machine check, which needs no attention."""
        return self.item.automatic and self.item.state == ChecklistState.SATISFIED

    @property
    def requested(self) -> bool:
        return self.waiver is not None and self.waiver.state == WaiverState.REQUESTED

    @property
    def is_met(self) -> bool:
        """True if the item does not block approval."""
        return self.item.state in MET_STATES or self.in_force


def checklist(page: Page) -> dict[str, Any]:
    """Return every item, the number of met items, and the person's actions on each."""
    attests = (
        page.is_open
        and page.may(Action.RELEASE_DECIDE, "release")
        and not page.had_a_part
        and page.may(Action.CHECKLIST_ATTEST, "review")
    )
    asks = page.is_open and page.may(Action.WAIVER_REQUEST, "review")
    decides = page.may(Action.WAIVER_DECIDE, "review")
    items = [
        _shown(page, item, attests=attests, asks=asks, decides=decides)
        for item in page.review.checklist.all()
    ]
    today = timezone.now().date()
    posted = page.screen.request.POST
    not_applicable = sum(row.item.state == ChecklistState.NOT_APPLICABLE for row in items)
    return {
        "checklist": items,
        "met": sum(row.is_met for row in items) - not_applicable,
        "applicable": len(items) - not_applicable,
        "not_applicable": not_applicable,
        "passed_by_machine": sum(row.passed_by_machine for row in items),
        "attestable": any(row.attests for row in items),
        "attest_items": posted.getlist("item"),
        "attest_note": posted.get("note", ""),
        "waived": sum(row.in_force for row in items),
        "may_attest": attests,
        "first_day": today.isoformat(),
        "last_day": (today + LONGEST - timedelta(days=1)).isoformat(),
    }


def _shown(
    page: Page, item: ChecklistItem, *, attests: bool, asks: bool, decides: bool
) -> ChecklistRow:
    waiver = next(reversed(item.waivers.all()), None)
    if waiver is not None:
        waiver.review, waiver.item = page.review, item
    requested = waiver is not None and waiver.state == WaiverState.REQUESTED
    unmet = item.state not in (*MET_STATES, ChecklistState.WAIVED)
    asking = asks and unmet and not requested
    deciding = decides and requested and page.is_open
    # The caller checks once, for all items, that the person may request waivers.
    not_asked = item_obstacle(page.review, item) if asking else None
    not_decided = decision_obstacle(page.actor, waiver) if deciding and waiver else None
    mine = waiver is not None and waiver.asked_by_id == page.actor.person_id
    return ChecklistRow(
        item=item,
        waiver=waiver,
        attests=attests and unmet and not item.automatic,
        asks=asking,
        not_asked=_message(not_asked),
        decides=deciding,
        not_decided=_message(not_decided),
        unproved=not_decided is not None and not_decided.code == CODE,
        withdraws=requested and mine and asks,
        revokes=decides and waiver is not None and waiver.state == WaiverState.GRANTED,
    )


def _message(obstacle: DomainError | None) -> str:
    return "" if obstacle is None else obstacle.message
