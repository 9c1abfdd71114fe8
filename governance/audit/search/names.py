"""Names to ids: who is called so, and what was ever called so in the log.

Events hold ids, and people's names stand in boxes that no index can read. So a name is looked up in
small tables first, people's among them, and events are then found by id.
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

# Of the people and things that a name matches, how many are searched for: the newest.
PEOPLE_MAX = 50
NAMES_MAX = 200
# What the words of a name match at the most before the newest are chosen.
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
    """Those with this e-mail address; or with this in their name or address, the newest.

    Events show names, but no addresses: these are only for who may see the people themselves.
    """
    seen = people_visible_to(actor)
    ids: list[int] = []
    if "@" in text:
        ids = list(seen.filter(email=text.lower()).values_list("pk", flat=True))
    if not ids:
        addressed = seen.filter(email__icontains=text).order_by().values("pk")
        people = Person.objects.filter(Q(name__icontains=text) | Q(pk__in=addressed))
        people = people.order_by("-pk")
        ids = list(people.values_list("pk", flat=True)[:PEOPLE_MAX])
    return tuple(("person", str(pk)) for pk in ids)


def named(actor: Principal, text: str) -> tuple[Pairs, Pairs]:
    """Actors, as (kind, id), and subjects, as (type, id), that are called so.

    People by what is in their names, everything else by the words of its name, which may be cut
    short; or the one that `text` names by type and id, as `key:7`.
    """
    people = people_named(actor, text)
    actors, subjects = list(people), list(people)
    kind, _, ref = text.partition(":")
    if ref.strip() and _TYPE.fullmatch(kind):
        actors.append((kind, ref.strip()))
        subjects.append((kind, ref.strip()))
    for role, type_, ref in _noted(actor, text):
        (actors if role == NameRole.ACTOR else subjects).append((type_, ref))
    return tuple(dict.fromkeys(actors)), tuple(dict.fromkeys(subjects))


def subjects_with(actor: Principal, ref: str) -> Pairs:
    """(type, id) of everything with this id."""
    names = _visible(actor, NameRole.SUBJECT).filter(ref=ref).order_by()
    return tuple(names.values_list("type", "ref").distinct()[:NAMES_MAX])


def all_of(actor: Principal, role: NameRole, type_: str) -> Pairs | None:
    """(type, ref) of everything of this type that events name; None when it is too much to list."""
    names = _visible(actor, role).filter(type=type_).order_by()
    found = tuple(names.values_list("type", "ref").distinct()[: NAMES_MAX + 1])
    return found if len(found) <= NAMES_MAX else None


def actions_under(prefix: str) -> tuple[str, ...]:
    """The actions in the log that begin so."""
    known = AuditName.objects.filter(role=NameRole.ACTION, type__startswith=prefix).order_by()
    return tuple(known.values_list("type", flat=True)[:NAMES_MAX])


def _noted(actor: Principal, text: str) -> list[tuple[str, str, str]]:
    """(role, type, ref): what is called exactly so first, then what was named last."""
    names = visible_to(actor, Action.AUDIT_VIEW, AuditName.objects.all(), resource_type="audit")
    # The bound is on what the actor may know: or what others call theirs would crowd it out.
    matches = names.order_by().extra(where=[_WORDS], params=[text])  # noqa: S610
    names = AuditName.objects.filter(pk__in=matches.values("pk")[:_MATCHES_MAX])
    exact = Case(When(name__iexact=text, then=0), default=1)
    return list(names.order_by(exact, "-pk").values_list("role", "type", "ref")[:NAMES_MAX])


def _visible(actor: Principal, role: NameRole) -> QuerySet[AuditName]:
    """Filter by the department of the events that name it, to hide other departments' names."""
    names = visible_to(actor, Action.AUDIT_VIEW, AuditName.objects.all(), resource_type="audit")
    return names.filter(role=role)
