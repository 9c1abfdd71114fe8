"""People whom a comment mentions: typed as `@handle`, kept as `@person-12`.

A handle is the part of an e-mail address before the @, the whole address where that is ambiguous,
or `person-12`. What is kept names a row: a new name shows, and an erased one is gone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from governance.people.models import Person
from governance.people.selectors import people_visible_to, principals_of
from governance.permissions import Action
from governance.policy.context import probing_context
from governance.policy.engine import decide
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.reviews.assignments.selectors import people_known
from governance.reviews.models import Review
from governance.reviews.reminders.models import ReminderKind
from governance.reviews.reminders.schedule import people_tell
from governance.reviews.selectors import review_resource, reviews_visible_to
from governance.reviews.threads.limits import checked_words
from governance.reviews.threads.models import Mention, ThreadComment

MENTIONS_MAX = 20
OFFERED_MAX = 8
TYPED_MAX = 64
# People of whom the policy is asked at once.
ASKED_MAX = 100
_TYPED = re.compile(
    r"(?<![\w@.+'-])@([A-Za-z0-9][\w.+'-]*(?:@[A-Za-z0-9][A-Za-z0-9.-]*)?)", re.ASCII
)
_NUMBERED = re.compile(r"person-([1-9][0-9]{0,17})")
_KEPT = re.compile(rf"(@{_NUMBERED.pattern}(?![0-9]))")


@dataclass(frozen=True, slots=True)
class Offer:
    """One person whom a comment may mention, and what one types to do so."""

    handle: str
    name: str


def mentions_resolved(actor: Principal, review: Review, text: str) -> tuple[str, list[Person]]:
    """Return the text to store and whom it mentions; ambiguous handles stay as typed.

    Raises:
        InvalidInput: it is too long with the numbers of the people.
    """
    handles = list(dict.fromkeys(_trimmed(found[1]) for found in _TYPED.finditer(text)))
    named = _named(actor, review, handles[:MENTIONS_MAX])
    if not named:
        return text, []

    def kept(found: re.Match[str]) -> str:
        handle = _trimmed(found[1])
        person = named.get(handle)
        return f"@person-{person.pk}{found[1][len(handle) :]}" if person else found[0]

    people = {person.pk: person for person in named.values()}
    return checked_words(_TYPED.sub(kept, text)), list(people.values())


def mentions_record(
    review: Review, entry: ThreadComment, people: list[Person]
) -> dict[str, object]:
    """Store whom the entry mentions; returns the data for its event.

    Only people who have seen all earlier mentions in the review are told.
    """
    if not people:
        return {}
    earlier = Mention.objects.filter(person__in=people, comment__thread__review=review)
    waiting = set(earlier.filter(seen_at=None).values_list("person_id", flat=True))
    told = [person for person in people if person.pk not in waiting]
    Mention.objects.bulk_create(Mention(comment=entry, person=person) for person in people)
    channels = []
    if told:
        channels = people_tell(review=review, kind=ReminderKind.MENTIONED, people=told)
    return {"mentions": [person.pk for person in people], "channels": channels}


def mentions_seen(*, actor: Principal, review_id: int) -> None:
    """The actor has opened the review, and so seen where they are mentioned in it."""
    _unseen(actor).filter(comment__thread__review=review_id).update(seen_at=timezone.now())


def mentions_unseen(actor: Principal) -> QuerySet[Mention]:
    """Mentions of the actor that they have not seen, in reviews that they may see; newest first."""
    reviews = reviews_visible_to(actor).order_by().select_related(None).values("pk")
    return (
        _unseen(actor)
        .filter(comment__thread__review__in=reviews)
        .select_related("comment__person", "comment__thread__review")
        .order_by("-pk")
    )


def mentions_offered(actor: Principal, review: Review, typed: str) -> list[Offer]:
    """People to complete `@typed` with, by the beginning of a handle or of a part of a name."""
    typed = typed.replace("\x00", "")[:TYPED_MAX].strip()
    if not typed:
        return []
    by_name = Q(name__istartswith=typed) | Q(name__icontains=f" {typed}")
    found = _mentionable(actor, review).filter(by_name | Q(email__istartswith=typed, met=True))
    people = _seeing(review, found.order_by("name", "pk"))[:OFFERED_MAX]
    alike = Q(pk__in=())
    for person in people:
        alike |= Q(email__istartswith=f"{_local(person)}@", met=True)
    namesakes = _seeing(review, _mentionable(actor, review).filter(alike))
    held = Counter(_local(person).lower() for person in namesakes)
    return [Offer(_handle(person, held), person.name) for person in people]


def mention_parts(entry: ThreadComment) -> list[tuple[str, str]]:
    """The entry's text in pieces: (words, "") and ("", name of who is mentioned)."""
    names = {mention.person_id: mention.person.name for mention in entry.mentions.all()}
    parts: list[tuple[str, str]] = []
    end = 0
    for found in _KEPT.finditer(entry.text) if names else ():
        # Only of who was resolved: whoever types a number learns no name.
        if (name := names.get(int(found[2]))) is not None:
            parts += [(entry.text[end : found.start()], ""), ("", name)]
            end = found.end()
    return [*parts, (entry.text[end:], "")]


def _unseen(actor: Principal) -> QuerySet[Mention]:
    if actor.person_id is None:
        return Mention.objects.none()
    return Mention.objects.filter(person_id=actor.person_id, seen_at=None)


def _trimmed(handle: str) -> str:
    """Without the punctuation of the sentence around it."""
    return handle.rstrip(".+'-")


def _local(person: Person) -> str:
    return person.email.partition("@")[0]


def _handle(person: Person, held: Counter[str]) -> str:
    local = _local(person)
    short = getattr(person, "met", False) and _TYPED.fullmatch(f"@{local}")
    if not short or _NUMBERED.fullmatch(local):
        return f"person-{person.pk}"
    return local if held[local.lower()] == 1 else person.email


def _mentionable(actor: Principal, review: Review) -> QuerySet[Person]:
    """Active people whose name `actor` may read; `met` where they may read the address too."""
    met = Exists(people_visible_to(actor).order_by().filter(pk=OuterRef("pk")))
    known = people_known(actor, review)
    return known.filter(~Q(pk=actor.person_id), is_active=True).annotate(met=met)


def _seeing(review: Review, people: Iterable[Person]) -> list[Person]:
    """Those who may see the review, of the first `ASKED_MAX`."""
    asked = list(people[:ASKED_MAX] if isinstance(people, QuerySet) else people)
    policy, resource, context = active_policy(), review_resource(review), probing_context()
    return [
        person
        for person, principal in zip(asked, principals_of(asked), strict=True)
        if decide(policy, principal, Action.RELEASE_VIEW, resource, context).allowed
    ]


def _named(actor: Principal, review: Review, handles: list[str]) -> dict[str, Person]:
    """The one person behind each handle; handles of no person or of several are left out."""
    wanted = {handle: _wanted(handle) for handle in handles}
    if not wanted:
        return {}
    query = Q(pk__in=())
    for each in wanted.values():
        query |= each
    people = _seeing(review, _mentionable(actor, review).filter(query).order_by("pk"))
    found = {}
    for handle in handles:
        fitting = [person for person in people if _fits(handle, person)]
        if len(fitting) == 1:
            found[handle] = fitting[0]
    return found


def _wanted(handle: str) -> Q:
    if numbered := _NUMBERED.fullmatch(handle):
        return Q(pk=int(numbered[1]))
    if "@" in handle:
        return Q(email__iexact=handle, met=True)
    return Q(email__istartswith=f"{handle}@", met=True)


def _fits(handle: str, person: Person) -> bool:
    if numbered := _NUMBERED.fullmatch(handle):
        return person.pk == int(numbered[1])
    address = person.email.lower()
    met: bool = getattr(person, "met", False)
    return met and handle.lower() in (address, address.partition("@")[0])
