"""Mentions of people in comments: typed as `@handle`, stored as `@person-12`.

A handle is the part of an e-mail address before the @, the whole address if that part is ambiguous,
or `person-12`. The stored form names a row: a comment shows the person's present name, if any.
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
from governance.reviews.assignments.selectors import review_people_visible_to
from governance.reviews.models import Review
from governance.reviews.reminders.models import ReminderKind
from governance.reviews.reminders.schedule import people_tell
from governance.reviews.selectors import review_resource, reviews_visible_to
from governance.reviews.threads.limits import checked_words
from governance.reviews.threads.models import Mention, ThreadComment

MENTIONS_MAX = 20
OFFERED_MAX = 8
TYPED_MAX = 64
# Most people whose access is checked at once.
ASKED_MAX = 100
_TYPED = re.compile(
    r"(?<![\w@.+'-])@([A-Za-z0-9][\w.+'-]*(?:@[A-Za-z0-9][A-Za-z0-9.-]*)?)", re.ASCII
)
_NUMBERED = re.compile(r"person-([1-9][0-9]{0,17})")
_STORED = re.compile(rf"(@{_NUMBERED.pattern}(?![0-9]))")


@dataclass(frozen=True, slots=True)
class Offer:
    """A person whom a comment may mention, with the handle to type."""

    handle: str
    name: str


def mentions_resolved(actor: Principal, review: Review, text: str) -> tuple[str, list[Person]]:
    """Return the text to store and the people whom it mentions; ambiguous handles stay as typed.

    Raises:
        InvalidInput: the text is too long after the handles were replaced.
    """
    handles = list(dict.fromkeys(_trimmed(match[1]) for match in _TYPED.finditer(text)))
    by_handle = _people_by_handle(actor, review, handles[:MENTIONS_MAX])
    if not by_handle:
        return text, []

    def stored(match: re.Match[str]) -> str:
        handle = _trimmed(match[1])
        person = by_handle.get(handle)
        return f"@person-{person.pk}{match[1][len(handle) :]}" if person else match[0]

    people = {person.pk: person for person in by_handle.values()}
    return checked_words(_TYPED.sub(stored, text)), list(people.values())


def mentions_record(
    review: Review, entry: ThreadComment, people: list[Person]
) -> dict[str, object]:
    """Store the mentions of an entry; returns the data for its event.

    Only people who have seen all earlier mentions in the review are notified.
    """
    if not people:
        return {}
    earlier = Mention.objects.filter(person__in=people, comment__thread__review=review)
    waiting = set(earlier.filter(seen_at=None).values_list("person_id", flat=True))
    recipients = [person for person in people if person.pk not in waiting]
    Mention.objects.bulk_create(Mention(comment=entry, person=person) for person in people)
    channels = []
    if recipients:
        channels = people_tell(review=review, kind=ReminderKind.MENTIONED, people=recipients)
    return {"mentions": [person.pk for person in people], "channels": channels}


def mentions_seen(*, actor: Principal, review_id: int) -> None:
    """Mark the actor's mentions in a review as seen, because they opened the review."""
    _unseen(actor).filter(comment__thread__review=review_id).update(seen_at=timezone.now())


def mentions_unseen(actor: Principal) -> QuerySet[Mention]:
    """Return the actor's unseen mentions in reviews that they may see, newest first."""
    reviews = reviews_visible_to(actor).order_by().select_related(None).values("pk")
    return (
        _unseen(actor)
        .filter(comment__thread__review__in=reviews)
        .select_related("comment__person", "comment__thread__review")
        .order_by("-pk")
    )


def mentions_offered(actor: Principal, review: Review, typed: str) -> list[Offer]:
    """Return completions of `@typed`: people whose handle or part of a name begins with it."""
    typed = typed.replace("\x00", "")[:TYPED_MAX].strip()
    if not typed:
        return []
    by_name = Q(name__istartswith=typed) | Q(name__icontains=f" {typed}")
    rows = _mentionable(actor, review).filter(by_name | Q(email__istartswith=typed, met=True))
    people = _who_may_view(review, rows.order_by("name", "pk"))[:OFFERED_MAX]
    alike = Q(pk__in=())
    for person in people:
        alike |= Q(email__istartswith=f"{_local(person)}@", met=True)
    namesakes = _who_may_view(review, _mentionable(actor, review).filter(alike))
    local_counts = Counter(_local(person).lower() for person in namesakes)
    return [Offer(_handle(person, local_counts), person.name) for person in people]


def mention_parts(entry: ThreadComment) -> list[tuple[str, str]]:
    """Split the entry's text into pairs: (text, "") and ("", name of the mentioned person)."""
    names = {mention.person_id: mention.person.name for mention in entry.mentions.all()}
    parts: list[tuple[str, str]] = []
    end = 0
    for match in _STORED.finditer(entry.text) if names else ():
        # Only for stored mentions: typing a number must not reveal a name.
        if (name := names.get(int(match[2]))) is not None:
            parts += [(entry.text[end : match.start()], ""), ("", name)]
            end = match.end()
    return [*parts, (entry.text[end:], "")]


def _unseen(actor: Principal) -> QuerySet[Mention]:
    if actor.person_id is None:
        return Mention.objects.none()
    return Mention.objects.filter(person_id=actor.person_id, seen_at=None)


def _trimmed(handle: str) -> str:
    """Return the handle without the punctuation that follows it."""
    return handle.rstrip(".+'-")


def _local(person: Person) -> str:
    return person.email.partition("@")[0]


def _handle(person: Person, local_counts: Counter[str]) -> str:
    local = _local(person)
    short = getattr(person, "met", False) and _TYPED.fullmatch(f"@{local}")
    if not short or _NUMBERED.fullmatch(local):
        return f"person-{person.pk}"
    return local if local_counts[local.lower()] == 1 else person.email


def _mentionable(actor: Principal, review: Review) -> QuerySet[Person]:
    """Return active people whose name the actor may read; `met` if the address, too."""
    met = Exists(people_visible_to(actor).order_by().filter(pk=OuterRef("pk")))
    people = review_people_visible_to(actor, review)
    return people.filter(~Q(pk=actor.person_id), is_active=True).annotate(met=met)


def _who_may_view(review: Review, people: Iterable[Person]) -> list[Person]:
    """Return those of the first `ASKED_MAX` people who may see the review."""
    candidates = list(people[:ASKED_MAX] if isinstance(people, QuerySet) else people)
    policy, resource, context = active_policy(), review_resource(review), probing_context()
    return [
        person
        for person, principal in zip(candidates, principals_of(candidates), strict=True)
        if decide(policy, principal, Action.RELEASE_VIEW, resource, context).allowed
    ]


def _people_by_handle(actor: Principal, review: Review, handles: list[str]) -> dict[str, Person]:
    """Return the person of each handle that matches exactly one person."""
    queries = {handle: _handle_query(handle) for handle in handles}
    if not queries:
        return {}
    query = Q(pk__in=())
    for each in queries.values():
        query |= each
    people = _who_may_view(review, _mentionable(actor, review).filter(query).order_by("pk"))
    by_handle = {}
    for handle in handles:
        matches = [person for person in people if _fits(handle, person)]
        if len(matches) == 1:
            by_handle[handle] = matches[0]
    return by_handle


def _handle_query(handle: str) -> Q:
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
