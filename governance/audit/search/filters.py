"""Filters of the event list: their conditions, and the indexes that find matching events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Literal, get_args

from django.db.models import Q

from governance.audit.search.action_words import actions_matching
from governance.audit.search.models import NameRole
from governance.audit.search.names import (
    Pairs,
    actions_under,
    all_of,
    named,
    subjects_with,
)
from governance.principals import Principal

TEXT_MAX = 200
NOTHING = Q(pk__in=[])


@dataclass(frozen=True, slots=True)
class EventFilter:
    """A filter of events. Empty fields are off; all others must match.

    `action` may end in a colon: `release:` matches all actions on releases. `since` is inclusive,
    `until` exclusive. `who` and `subject` are names as people type them, or `key:7`; `query` is
    either of these, the ID of a request or subject, or an action.
    """

    action: str | None = None
    actor_kind: str | None = None
    actor_id: str | None = None
    who: str | None = None
    subject_type: str | None = None
    subject_id: str | None = None
    subject: str | None = None
    outcome: str | None = None
    department: str | None = None
    request_id: str | None = None
    policy_version: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    query: str | None = None

    @property
    def impossible(self) -> bool:
        """True if a field has text that PostgreSQL cannot store, so that no event matches."""
        texts = (getattr(self, field.name) for field in fields(self))
        return any(isinstance(text, str) and not _storable(text) for text in texts)


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


@dataclass(frozen=True, slots=True)
class Way:
    """An index that finds events, newest or oldest first, with the keys to look up in it.

    `where` is the condition of a partial index, in SQL.
    """

    columns: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    where: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A condition of a filter. Its `ways` together find all matching events; a part without ways
    only narrows the results of other parts."""

    holds: Q
    ways: tuple[Way, ...] = ()

    @property
    def keys(self) -> int:
        """Number of keys that are looked up."""
        return sum(len(way.keys) for way in self.ways)


_ACTOR = ("actor_kind", "actor_id")
_SUBJECT = ("subject_type", "subject_id")
ActorKind = Literal["person", "key", "service", "anonymous"]
KINDS: tuple[str, ...] = get_args(ActorKind)
# Sealing indexes the names of events. The few unsealed events are searched directly.
UNSEALED = Way((), ((),), "sequence IS NULL")


def parts_of(actor: Principal, criteria: EventFilter) -> list[Part]:
    """Return the conditions of a filter, with names resolved as far as `actor` may see them."""
    if criteria.impossible:
        return [Part(NOTHING)]
    parts = [*_by_actor(actor, criteria), *_by_subject(actor, criteria), *_by_columns(criteria)]
    if criteria.query:
        parts.append(_by_query(actor, criteria.query[:TEXT_MAX].strip()))
    return parts


def _by_actor(actor: Principal, criteria: EventFilter) -> Iterable[Part]:
    kind, ref = criteria.actor_kind, criteria.actor_id
    if ref:
        yield _pairs(_ACTOR, tuple((k, ref) for k in ([kind] if kind else KINDS)))
    elif kind:
        yield _typed(actor, NameRole.ACTOR, _ACTOR, kind)
    if criteria.who:
        text = criteria.who[:TEXT_MAX].strip()
        yield _named(_ACTOR, named(actor, text)[0], text)


def _by_subject(actor: Principal, criteria: EventFilter) -> Iterable[Part]:
    kind, ref = criteria.subject_type, criteria.subject_id
    if kind and ref:
        yield _pairs(_SUBJECT, ((kind, ref),))
    elif kind:
        yield _typed(actor, NameRole.SUBJECT, _SUBJECT, kind)
    elif ref:
        holds = Q(subject_id=ref)
        yield Part(holds, (Way(_SUBJECT, subjects_with(actor, ref)), UNSEALED))
    if criteria.subject:
        text = criteria.subject[:TEXT_MAX].strip()
        yield _named(_SUBJECT, named(actor, text)[1], text)


def _by_columns(criteria: EventFilter) -> Iterable[Part]:
    if criteria.action:
        yield _action(criteria.action)
    if criteria.outcome:
        rare = criteria.outcome != "allowed"
        way = Way(("outcome",), ((criteria.outcome,),), "outcome <> 'allowed'")
        yield Part(Q(outcome=criteria.outcome), (way,) if rare else ())
    if criteria.department:
        way = Way(("department",), ((criteria.department,),))
        yield Part(Q(department=criteria.department), (way,))
    if criteria.request_id:
        yield Part(Q(request_id=criteria.request_id), _request(criteria.request_id))
    times = {"occurred_at__gte": criteria.since, "occurred_at__lt": criteria.until}
    spans = {name: moment for name, moment in times.items() if moment is not None}
    if spans:
        yield Part(Q(**spans))
    if criteria.policy_version is not None:
        yield Part(Q(policy_version=criteria.policy_version))


def _by_query(actor: Principal, text: str) -> Part:
    """Match any of: an actor, a subject, a request's ID, an action by its name or its words."""
    actors, subjects = named(actor, text)
    alternatives = [
        _named(_ACTOR, actors, text),
        _named(_SUBJECT, subjects, text),
        Part(Q(request_id=text), _request(text)),
    ]
    if ":" in text:
        alternatives.append(_action(text))
    if actions := actions_matching(text):
        alternatives.append(
            Part(Q(action__in=actions), (Way(("action",), tuple((a,) for a in actions)),))
        )
    holds = reduce(or_, (part.holds for part in alternatives))
    return Part(holds, tuple(dict.fromkeys(way for part in alternatives for way in part.ways)))


def _action(action: str) -> Part:
    if not action.endswith(":"):
        return Part(Q(action=action), (Way(("action",), ((action,),)),))
    actions = actions_under(action)
    ways = (Way(("action",), tuple((name,) for name in actions)), UNSEALED)
    return Part(Q(action__startswith=action), ways)


def _request(request_id: str) -> tuple[Way, ...]:
    keys = ((request_id,),)
    return (
        Way(("request_id",), keys, "request_id <> '' AND delivery = ''"),
        Way(("delivery",), keys, "delivery <> ''"),
    )


def _typed(actor: Principal, role: NameRole, columns: tuple[str, str], kind: str) -> Part:
    """Match all objects of a type, with an index if there are few of them."""
    pairs = all_of(actor, role, kind)
    holds = Q(**{columns[0]: kind})
    return Part(holds) if pairs is None else Part(holds, (Way(columns, pairs), UNSEALED))


def _pairs(columns: tuple[str, str], pairs: Pairs) -> Part:
    kinds: dict[str, list[str]] = {}
    for kind, ref in pairs:
        kinds.setdefault(kind, []).append(ref)
    tests = [Q(**{columns[0]: kind, f"{columns[1]}__in": refs}) for kind, refs in kinds.items()]
    return Part(reduce(or_, tests, NOTHING), (Way(columns, pairs),))


def _named(columns: tuple[str, str], pairs: Pairs, text: str) -> Part:
    """Match events with one of these pairs, and unsealed events that contain the name, because the
    sealer has not indexed them yet."""
    part = _pairs(columns, pairs)
    name = f"{columns[0].partition('_')[0]}_name__icontains"
    waiting = Q(sequence__isnull=True, **{name: text})
    return Part(part.holds | waiting, (*part.ways, UNSEALED))


def holds(actor: Principal, criteria: EventFilter) -> Q:
    """Return the condition for the events that match a filter."""
    return reduce(lambda condition, part: condition & part.holds, parts_of(actor, criteria), Q())
