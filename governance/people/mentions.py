"""Replace mentions of people, such as `person 3`, by their names.

Dossiers, model cards and reasons name people by number, so that erasing someone changes no digest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from governance.people.models import Person

_MENTION = re.compile(r"\bperson ([0-9]{1,18})\b")


def people_mentioned(text: str) -> set[int]:
    """Return the IDs of the people that a text mentions."""
    return {int(number) for number in _MENTION.findall(text)}


def people_names(people: Collection[int]) -> dict[int, str]:
    """Return names by ID; IDs of no person are missing."""
    return dict(Person.objects.filter(pk__in=people).values_list("pk", "name"))


def with_names(text: str, names: Mapping[int, str]) -> str:
    """Return a text with names in place of the mentions whose IDs are in `names`."""
    return _MENTION.sub(lambda mention: names.get(int(mention[1]), mention[0]), text)
