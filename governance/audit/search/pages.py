"""Pages of the event list, with about the same cost for every filter.

A page does not count the log, does not skip rows, and reads at most `LOOKED_AT` events. It reads
the narrowest index of the filter's conditions, from the end of the page before, and applies the
other conditions to these events. If it has read the maximum and is not full, it reports its
position, and the next page continues there.
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
# Index entries to skip when estimating how narrow an index is.
PROBED = 400
# Maximum number of ID ranges that one page reads.
STRETCHES_MAX = 4

Ways = tuple[Way, ...]
_EVERYTHING: Ways = (Way((), ((),)),)
_NAMES = frozenset({"eq", "in", "names_any"})


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, newest first, with the content of their boxes filled in.

    The next page has events before ID `older`, or None if no older event can match. The previous
    page has events after ID `newer`, or None on the newest page. `searched_to` is the time of the
    event at which the search stopped because the limit was reached.
    """

    events: list[AuditEvent]
    older: int | None = None
    newer: int | None = None
    searched_to: datetime | None = None


def audit_event_page(
    *,
    actor: Principal,
    event_filter: EventFilter,
    before: int | None = None,
    after: int | None = None,
    size: int = 50,
) -> EventPage:
    """Return the newest events that the policy lets `actor` see and the filter selects.

    Args:
        before: Only events with a lower ID.
        after: Only events with a higher ID, those nearest to it.
        size: Maximum number of events, at most `PAGE_MAX`.
    """
    size = min(size, PAGE_MAX)
    newest_first = after is None
    low, high = (0 if after is None else after + 1), (LAST if before is None else before)
    parts = parts_of(actor, event_filter)
    rows = visible_to(actor, Action.AUDIT_VIEW, AuditEvent.objects.all(), resource_type="audit")
    for part in parts:
        rows = rows.filter(part.holds)
    if _selects_nothing(rows):
        return EventPage([])
    stretches = stretches_of(event_filter, Stretch(low, high, newest_first), STRETCHES_MAX + 1)
    further = stretches[STRETCHES_MAX:]
    reach = _departments_of(actor)
    events, cut = _matches(rows, [*parts, *reach], stretches[:STRETCHES_MAX], size + 1)
    if len(events) <= size and cut is None and further:
        cut = further[0].high if newest_first else further[0].low - 1
    return _page(events, cut, size, newest_first, before)


def _selects_nothing(rows: QuerySet[AuditEvent]) -> bool:
    try:
        rows.query.sql_with_params()
    except EmptyResultSet:
        return True
    return False


def _page(
    events: list[AuditEvent], cut: int | None, size: int, newest_first: bool, before: int | None
) -> EventPage:
    page = opened(events[:size])
    full = len(events) > size
    onwards = page[-1].pk if full else cut
    searched_to = None if full or cut is None else _time_at(cut)
    if newest_first:
        newer = None if before is None else (page[0].pk if page else before - 1)
        return EventPage(page, older=onwards, newer=newer, searched_to=searched_to)
    # Paging back starts from a page of older events, so there always are some.
    older = page[0].pk if page else None
    return EventPage(page[::-1], older=older, newer=onwards, searched_to=searched_to)


def _time_at(place: int) -> datetime | None:
    times = AuditEvent.objects.filter(pk__gte=place).order_by("pk")
    return times.values_list("occurred_at", flat=True).first()


def _matches(
    rows: QuerySet[AuditEvent], parts: list[Part], stretches: list[Stretch], count: int
) -> tuple[list[AuditEvent], int | None]:
    """Return up to `wanted` events, and the ID at which the search stopped early, or None."""
    events: list[AuditEvent] = []
    ways = _narrowest(parts, stretches) if stretches else ()
    if not ways:
        return events, None
    for stretch in stretches:
        more, cut = _search(rows, ways, stretch, count - len(events), LOOKED_AT // len(stretches))
        events += more
        if len(events) >= count or cut is not None:
            return events, cut
    return events, None


def _search(
    rows: QuerySet[AuditEvent], ways: Ways, stretch: Stretch, count: int, share: int
) -> tuple[list[AuditEvent], int | None]:
    """Do the same as `_matches` for one stretch, reading about `share` events."""
    if ways == _EVERYTHING:
        return _by_primary_key(rows, stretch, count, share)
    deepest = max(share // keys_of(ways), 10)
    steps = (4 * count, 32 * count)
    events: list[AuditEvent] = []
    cut: int | None = None
    for depth in sorted({min(step, deepest) for step in (*steps, deepest)}):
        ids, cut = ids_along(ways, stretch, depth)
        events = []
        for first, last in pairwise((0, *steps, len(ids))):
            if len(events) < count and (batch := ids[first:last]):
                events += _with_ids(rows, batch, stretch, count - len(events))
        if len(events) >= count:
            return events, None
        if cut is None:
            break
    return events, cut


def _by_primary_key(
    rows: QuerySet[AuditEvent], stretch: Stretch, count: int, share: int
) -> tuple[list[AuditEvent], int | None]:
    """Do the same as `_search` along the primary key, without listing IDs."""
    for depth in sorted({min(step, share) for step in (4 * count, 16 * count, share)}):
        cut = end_of(stretch, depth)
        part = stretch.until(cut)
        within = rows.filter(pk__gte=part.low, pk__lt=part.high)
        events = list(within.order_by("-pk" if stretch.newest_first else "pk")[:count])
        if len(events) >= count:
            return events, None
        if cut is None:
            break
    return events, cut


def _with_ids(
    rows: QuerySet[AuditEvent], ids: list[int], stretch: Stretch, count: int
) -> list[AuditEvent]:
    # One parameter; `pk__in` would add one for each ID.
    matches = rows.extra(where=[f"{TABLE}.id = ANY(%s)"], params=[ids])  # noqa: S610
    return list(matches.order_by("-pk" if stretch.newest_first else "pk")[:count])


def _narrowest(parts: list[Part], stretches: list[Stretch]) -> Ways:
    """Return the indexes of the condition that probably matches the fewest events."""
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
        """Estimate the number of a key's events, assuming that they are evenly distributed."""
        width = stretch.high - (end or 0) if stretch.newest_first else (end or 0) - stretch.low + 1
        return 0 if end is None else PROBED * (stretch.high - stretch.low) / max(width, 1)

    fewest, ways = min(
        ((estimate(end), ways) for end, ways in zip(ends, single, strict=True)),
        key=lambda choice: choice[0],
    )
    return min(several, key=keys_of) if several and fewest > LOOKED_AT else ways


def _departments_of(actor: Principal) -> list[Part]:
    """Return a condition for the departments to which the policy limits `actor`; empty if the
    policy may show events of any department."""
    visible = visibility(active_policy(), actor, Action.AUDIT_VIEW, with_base(None))
    slugs: set[str] = set()
    for clause in visible.for_type("audit").permits:
        if clause.lapsed:
            continue
        for condition in clause.conditions:
            if condition.attribute == "department" and condition.operator in _NAMES:
                value = condition.value
                slugs |= {str(value)} if condition.operator == "eq" else set(map(str, value))
                break
        else:
            return []
    keys = tuple((name,) for name in sorted(slugs))
    return [Part(Q(), (Way(("department",), keys),))] if keys else []
