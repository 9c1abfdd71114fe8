"""Pages of the event list that cost about the same whatever is asked.

No page counts the log, none skips rows, and none looks at more than `LOOKED_AT` events. A page goes
down the narrowest index that a condition of the filter has, from where the page before ended; the
other conditions are tried on what is found there. When as many events were looked at and the page
is still not full, it says how far it came, and the next one goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from django.core.exceptions import EmptyResultSet
from django.db.models import Q, QuerySet

from governance.audit.models import AuditEvent
from governance.audit.personal import opened
from governance.audit.search.filters import EventFilter, Part, Way, parts_of
from governance.audit.search.index_scan import (
    LAST,
    TABLE,
    Stretch,
    end_of,
    ids_along,
    keys_of,
    reaches,
)
from governance.audit.search.spans import stretches_of
from governance.permissions import Action
from governance.policy.context import with_base
from governance.policy.engine import visibility
from governance.policy.selectors import visible_to
from governance.policy.services import active_policy
from governance.principals import Principal

PAGE_MAX = 100
LOOKED_AT = 6_000
# How many entries of an index are passed over to see how narrow it is.
PROBED = 400
# Stretches of ids that one page goes through.
STRETCHES_MAX = 4

Ways = tuple[Way, ...]
_EVERYTHING: Ways = (Way((), ((),)),)
_NAMES = frozenset({"eq", "in", "names_any"})


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, newest first, opened: with the names in them.

    The next page is of what is before the id `older`; None when nothing older can match. The one
    back is of what is after the id `newer`; None on the newest page. `searched_to` is the time of
    the event at which the page was given up, when it had looked at so many.
    """

    events: list[AuditEvent]
    older: int | None = None
    newer: int | None = None
    searched_to: datetime | None = None


def audit_event_page(
    *,
    actor: Principal,
    given: EventFilter,
    before: int | None = None,
    after: int | None = None,
    size: int = 50,
) -> EventPage:
    """The newest events that the policy lets `actor` see and the filter selects.

    Args:
        before: Only events with a lower id.
        after: Only events with a higher id, and the nearest of these.
        size: At the most so many; `PAGE_MAX` at the very most.
    """
    size = min(size, PAGE_MAX)
    newest_first = after is None
    low, high = (0 if after is None else after + 1), (LAST if before is None else before)
    parts = parts_of(actor, given)
    rows = visible_to(actor, Action.AUDIT_VIEW, AuditEvent.objects.all(), resource_type="audit")
    for part in parts:
        rows = rows.filter(part.holds)
    if _selects_nothing(rows):
        return EventPage([])
    stretches = stretches_of(given, Stretch(low, high, newest_first), STRETCHES_MAX + 1)
    further = stretches[STRETCHES_MAX:]
    reach = _departments_of(actor)
    found, cut = _found(rows, [*parts, *reach], stretches[:STRETCHES_MAX], size + 1)
    if len(found) <= size and cut is None and further:
        cut = further[0].high if newest_first else further[0].low - 1
    return _page(found, cut, size, newest_first, before)


def _selects_nothing(rows: QuerySet[AuditEvent]) -> bool:
    try:
        rows.query.sql_with_params()
    except EmptyResultSet:
        return True
    return False


def _page(
    found: list[AuditEvent], cut: int | None, size: int, newest_first: bool, before: int | None
) -> EventPage:
    shown = opened(found[:size])
    full = len(found) > size
    onwards = shown[-1].pk if full else cut
    searched_to = None if full or cut is None else _time_at(cut)
    if newest_first:
        newer = None if before is None else (shown[0].pk if shown else before - 1)
        return EventPage(shown, older=onwards, newer=newer, searched_to=searched_to)
    # Whoever goes back finds older ones at the least where they came from.
    older = shown[0].pk if shown else None
    return EventPage(shown[::-1], older=older, newer=onwards, searched_to=searched_to)


def _time_at(place: int) -> datetime | None:
    times = AuditEvent.objects.filter(pk__gte=place).order_by("pk")
    return times.values_list("occurred_at", flat=True).first()


def _found(
    rows: QuerySet[AuditEvent], parts: list[Part], stretches: list[Stretch], wanted: int
) -> tuple[list[AuditEvent], int | None]:
    """Up to `wanted` events of the stretches, and the id at which they were given up, if so."""
    found: list[AuditEvent] = []
    ways = _narrowest(parts, stretches) if stretches else ()
    if not ways:
        return found, None
    for stretch in stretches:
        more, cut = _search(rows, ways, stretch, wanted - len(found), LOOKED_AT // len(stretches))
        found += more
        if len(found) >= wanted or cut is not None:
            return found, cut
    return found, None


def _search(
    rows: QuerySet[AuditEvent], ways: Ways, stretch: Stretch, wanted: int, share: int
) -> tuple[list[AuditEvent], int | None]:
    """As `_found` in one stretch, looking at about `share` events."""
    if ways == _EVERYTHING:
        return _through(rows, stretch, wanted, share)
    deepest = max(share // keys_of(ways), 10)
    steps = (4 * wanted, 32 * wanted)
    found: list[AuditEvent] = []
    cut: int | None = None
    for depth in sorted({min(step, deepest) for step in (*steps, deepest)}):
        ids, cut = ids_along(ways, stretch, depth)
        found = []
        for first, last in pairwise((0, *steps, len(ids))):
            if len(found) < wanted and (some := ids[first:last]):
                found += _among(rows, some, stretch, wanted - len(found))
        if len(found) >= wanted:
            return found, None
        if cut is None:
            break
    return found, cut


def _through(
    rows: QuerySet[AuditEvent], stretch: Stretch, wanted: int, share: int
) -> tuple[list[AuditEvent], int | None]:
    """As `_search` without any index but the primary key, whose ids need no listing."""
    for depth in sorted({min(step, share) for step in (4 * wanted, 16 * wanted, share)}):
        cut = end_of(stretch, depth)
        part = stretch.until(cut)
        within = rows.filter(pk__gte=part.low, pk__lt=part.high)
        found = list(within.order_by("-pk" if stretch.newest_first else "pk")[:wanted])
        if len(found) >= wanted:
            return found, None
        if cut is None:
            break
    return found, cut


def _among(
    rows: QuerySet[AuditEvent], ids: list[int], stretch: Stretch, wanted: int
) -> list[AuditEvent]:
    # As one value: Django would write every id into the query for itself.
    these = rows.extra(where=[f"{TABLE}.id = ANY(%s)"], params=[ids])  # noqa: S610
    return list(these.order_by("-pk" if stretch.newest_first else "pk")[:wanted])


def _narrowest(parts: list[Part], stretches: list[Stretch]) -> Ways:
    """Along what to look: the condition that seems to hold on the fewest events."""
    choices = [tuple(way for way in part.ways if way.keys) for part in parts if part.ways]
    if len(choices) < 2 or not all(choices):
        return (choices or [_EVERYTHING])[0] if all(choices) else ()
    single = [ways for ways in choices if keys_of(ways) == 1]
    several = [ways for ways in choices if keys_of(ways) != 1]
    if not single:
        return min(several, key=keys_of)
    low, high = min(s.low for s in stretches), max(s.high for s in stretches)
    stretch = Stretch(low, high, stretches[0].newest_first)
    first, last, *ends = reaches([ways[0] for ways in single], stretch, PROBED)
    stretch = stretch.within(first or 0, (last or 0) + 1)

    def estimate(end: int | None) -> float:
        """Estimate the number of events of a key, if they are equally frequent everywhere."""
        gone = stretch.high - (end or 0) if stretch.newest_first else (end or 0) - stretch.low + 1
        return 0 if end is None else PROBED * (stretch.high - stretch.low) / max(gone, 1)

    fewest, ways = min(
        ((estimate(end), ways) for end, ways in zip(ends, single, strict=True)),
        key=lambda each: each[0],
    )
    return min(several, key=keys_of) if several and fewest > LOOKED_AT else ways


def _departments_of(actor: Principal) -> list[Part]:
    """As a condition, the departments outside of which the policy shows `actor` nothing; none when
    it might."""
    visible = visibility(active_policy(), actor, Action.AUDIT_VIEW, with_base(None))
    named: set[str] = set()
    for clause in visible.for_type("audit").permits:
        if clause.lapsed:
            continue
        for condition in clause.conditions:
            if condition.attribute == "department" and condition.operator in _NAMES:
                value = condition.value
                named |= {str(value)} if condition.operator == "eq" else set(map(str, value))
                break
        else:
            return []
    keys = tuple((name,) for name in sorted(named))
    return [Part(Q(), (Way(("department",), keys),))] if keys else []
