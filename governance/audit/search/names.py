"""Lookup of IDs by name: people, and all objects that the log has ever named.

Events contain IDs, and people's names are in boxes that an index cannot read. So a name is looked
up in small tables first, including that of people, and then events are found by ID.
"""

from __future__ import annotations

import re

from django.db.models import Case, Q, QuerySet, When

from governance.audit.search.models import AuditName, NameRole
from governance.people.models import Person
from governance.people.selectors import people_visible_to
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal

# Maximum numbers of matching people and objects to search for; the newest are chosen.
PEOPLE_MAX = 50
NAMES_MAX = 200
# Maximum number of rows that match the words, before the newest are chosen.
_MATCHES_MAX = 5000
_TYPE = re.compile("[a-z_]{1,40}")

Pairs = tuple[tuple[str, str], ...]

_WORDS = """
array_to_tsvector(assay_words(name)) @@ (
    SELECT string_agg('''' || word || ''':*', ' & ')::tsquery
    FROM unnest((assay_words(%s))[1:8]) AS word
)
"""


def people_named(actor: Principal, text: str) -> Pairs:
    """Return the people with this email address, or else the newest whose name or address has it.

    Addresses are searched only for people whom the actor may see, because events do not show them.
    """
    visible = people_visible_to(actor)
    ids: list[int] = []
    if "@" in text:
        ids = list(visible.filter(email=text.lower()).values_list("pk", flat=True))
    if not ids:
        addressed = visible.filter(email__icontains=text).order_by().values("pk")
        people = Person.objects.filter(Q(name__icontains=text) | Q(pk__in=addressed))
        people = people.order_by("-pk")
        ids = list(people.values_list("pk", flat=True)[:PEOPLE_MAX])
    return tuple(("person", str(pk)) for pk in ids)


def named(actor: Principal, text: str) -> tuple[Pairs, Pairs]:
    """Return the actors, as (kind, ID), and subjects, as (type, ID), with this name.

    People match by any part of their name, other objects by words or beginnings of words. `text`
    may also be a type and an ID, such as `key:7`.
    """
    matches = people_named(actor, text)
    actors, subjects = list(matches), list(matches)
    kind, _, ref = text.partition(":")
    if ref.strip() and _TYPE.fullmatch(kind):
        actors.append((kind, ref.strip()))
        subjects.append((kind, ref.strip()))
    for role, type_, ref in _recorded(actor, text):
        (actors if role == NameRole.ACTOR else subjects).append((type_, ref))
    return tuple(dict.fromkeys(actors)), tuple(dict.fromkeys(subjects))


def subjects_with(actor: Principal, ref: str) -> Pairs:
    """Return (type, ID) of all subjects with this ID."""
    names = _visible(actor, NameRole.SUBJECT).filter(ref=ref).order_by()
    return tuple(names.values_list("type", "ref").distinct()[:NAMES_MAX])


def all_of(actor: Principal, role: NameRole, type_: str) -> Pairs | None:
    """Return (type, ref) of all objects of a type in events, or None if there are too many."""
    names = _visible(actor, role).filter(type=type_).order_by()
    pairs = tuple(names.values_list("type", "ref").distinct()[: NAMES_MAX + 1])
    return pairs if len(pairs) <= NAMES_MAX else None


def actions_under(prefix: str) -> tuple[str, ...]:
    """Return the actions in the log that start with `prefix`."""
    names = AuditName.objects.filter(role=NameRole.ACTION, type__startswith=prefix).order_by()
    return tuple(names.values_list("type", flat=True)[:NAMES_MAX])


def _recorded(actor: Principal, text: str) -> list[tuple[str, str, str]]:
    """Return (role, type, ref) of matching names: exact matches first, then the newest."""
    names = visible_to(actor, Action.AUDIT_VIEW, AuditName.objects.all(), resource_type="audit")
    # Limit the visible names only: other departments' names must not crowd them out.
    matches = names.order_by().extra(where=[_WORDS], params=[text])  # noqa: S610
    names = AuditName.objects.filter(pk__in=matches.values("pk")[:_MATCHES_MAX])
    exact = Case(When(name__iexact=text, then=0), default=1)
    return list(names.order_by(exact, "-pk").values_list("role", "type", "ref")[:NAMES_MAX])


def _visible(actor: Principal, role: NameRole) -> QuerySet[AuditName]:
    """Return the names in events that the actor may see; hides other departments' names."""
    names = visible_to(actor, Action.AUDIT_VIEW, AuditName.objects.all(), resource_type="audit")
    return names.filter(role=role)
