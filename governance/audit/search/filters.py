"""Meaning of a filter of the event list: the matching events, and the indexes that find them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Literal, get_args

from django.db.models import Q

from governance.audit.search.action_words import actions_said
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
    """A filter of events; what is empty is off, what is given must all hold.

    `action` may end in a colon: `release:` is every action on releases. `since` is inclusive,
    `until` exclusive. `who` and `subject` are names as people type them, or `key:7`; `query` is any
    of the two, a request's or subject's id, or an action.
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
        """True when it asks for text that PostgreSQL cannot store, so that no event matches."""
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
    """An index along which events are found, newest or oldest first, and the keys to look up in it.

    `where` is the condition of a partial index, in SQL.
    """

    columns: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    where: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One condition of a filter. Every event on which it holds is on one of its `ways`; without any
    it only narrows what is found otherwise."""

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
# Sealing notes names. What waits for it is looked at itself; it is little.
UNSEALED = Way((), ((),), "sequence IS NULL")


def parts_of(actor: Principal, given: EventFilter) -> list[Part]:
    """The conditions of a filter, with names resolved as far as `actor` may know them."""
    if given.impossible:
        return [Part(NOTHING)]
    parts = [*_by_actor(actor, given), *_by_subject(actor, given), *_by_columns(given)]
    if given.query:
        parts.append(_by_query(actor, given.query[:TEXT_MAX].strip()))
    return parts


def _by_actor(actor: Principal, given: EventFilter) -> Iterable[Part]:
    kind, ref = given.actor_kind, given.actor_id
    if ref:
        yield _pairs(_ACTOR, tuple((each, ref) for each in ([kind] if kind else KINDS)))
    elif kind:
        yield _typed(actor, NameRole.ACTOR, _ACTOR, kind)
    if given.who:
        text = given.who[:TEXT_MAX].strip()
        yield _called(_ACTOR, named(actor, text)[0], text)


def _by_subject(actor: Principal, given: EventFilter) -> Iterable[Part]:
    kind, ref = given.subject_type, given.subject_id
    if kind and ref:
        yield _pairs(_SUBJECT, ((kind, ref),))
    elif kind:
        yield _typed(actor, NameRole.SUBJECT, _SUBJECT, kind)
    elif ref:
        holds = Q(subject_id=ref)
        yield Part(holds, (Way(_SUBJECT, subjects_with(actor, ref)), UNSEALED))
    if given.subject:
        text = given.subject[:TEXT_MAX].strip()
        yield _called(_SUBJECT, named(actor, text)[1], text)


def _by_columns(given: EventFilter) -> Iterable[Part]:
    if given.action:
        yield _action(given.action)
    if given.outcome:
        rare = given.outcome != "allowed"
        way = Way(("outcome",), ((given.outcome,),), "outcome <> 'allowed'")
        yield Part(Q(outcome=given.outcome), (way,) if rare else ())
    if given.department:
        way = Way(("department",), ((given.department,),))
        yield Part(Q(department=given.department), (way,))
    if given.request_id:
        yield Part(Q(request_id=given.request_id), _request(given.request_id))
    times = {"occurred_at__gte": given.since, "occurred_at__lt": given.until}
    spans = {name: moment for name, moment in times.items() if moment is not None}
    if spans:
        yield Part(Q(**spans))
    if given.policy_version is not None:
        yield Part(Q(policy_version=given.policy_version))


def _by_query(actor: Principal, text: str) -> Part:
    """Any of: who, what, a request's id, an action by its name or by the words of its sentence."""
    actors, subjects = named(actor, text)
    found = [
        _called(_ACTOR, actors, text),
        _called(_SUBJECT, subjects, text),
        Part(Q(request_id=text), _request(text)),
    ]
    if ":" in text:
        found.append(_action(text))
    if actions := actions_said(text):
        found.append(Part(Q(action__in=actions), (Way(("action",), tuple((a,) for a in actions)),)))
    holds = reduce(or_, (part.holds for part in found))
    return Part(holds, tuple(dict.fromkeys(way for part in found for way in part.ways)))


def _action(action: str) -> Part:
    if not action.endswith(":"):
        return Part(Q(action=action), (Way(("action",), ((action,),)),))
    known = actions_under(action)
    ways = (Way(("action",), tuple((each,) for each in known)), UNSEALED)
    return Part(Q(action__startswith=action), ways)


def _request(request_id: str) -> tuple[Way, ...]:
    one = ((request_id,),)
    return (
        Way(("request_id",), one, "request_id <> '' AND delivery = ''"),
        Way(("delivery",), one, "delivery <> ''"),
    )


def _typed(actor: Principal, role: NameRole, columns: tuple[str, str], kind: str) -> Part:
    """Everything of a type: along what there is of it, when that is little."""
    pairs = all_of(actor, role, kind)
    holds = Q(**{columns[0]: kind})
    return Part(holds) if pairs is None else Part(holds, (Way(columns, pairs), UNSEALED))


def _pairs(columns: tuple[str, str], pairs: Pairs) -> Part:
    kinds: dict[str, list[str]] = {}
    for kind, ref in pairs:
        kinds.setdefault(kind, []).append(ref)
    each = [Q(**{columns[0]: kind, f"{columns[1]}__in": refs}) for kind, refs in kinds.items()]
    return Part(reduce(or_, each, NOTHING), (Way(columns, pairs),))


def _called(columns: tuple[str, str], pairs: Pairs, text: str) -> Part:
    """Events with one of these pairs; also unsealed events that contain the name, because the
    sealer has not indexed them yet."""
    part = _pairs(columns, pairs)
    name = f"{columns[0].partition('_')[0]}_name__icontains"
    waiting = Q(sequence__isnull=True, **{name: text})
    return Part(part.holds | waiting, (*part.ways, UNSEALED))


def holds(actor: Principal, given: EventFilter) -> Q:
    """On which events a filter holds."""
    return reduce(lambda both, part: both & part.holds, parts_of(actor, given), Q())
