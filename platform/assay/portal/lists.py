"""Pages of one list, declared by rows, filters and columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db.models import QuerySet

from assay.portal.access import may_somewhere
from assay.portal.http import Screen, page_of
from assay.portal.templatetags.assay import sentence
from governance.permissions import Action
from governance.schemas import Filter


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the toolbar: a list of choices or, without `choices`, a search text.

    `none` is the label of the choice without a filter; if empty, the first choice is the default.
    """

    name: str
    label: str
    choices: Sequence[tuple[str, str]] | None = None
    none: str = "Any"


def states(choices: Iterable[tuple[str, str]], none: str = "Any") -> Field:
    """Return the field that filters by state."""
    return Field("state", "State", [(value, sentence(label)) for value, label in choices], none)


class ListScreen(Screen):
    """A page of rows. Its template extends `portal/list.html` and fills the cells of one row.

    `columns` are the headings, as for the tag `table`. Invalid values of `filters` in the query
    string are ignored. `creates` is the action of the page's button, and its kind of object.
    """

    title: ClassVar[str]
    lead: ClassVar[str]
    columns: ClassVar[str]
    filters: ClassVar[type[Filter]] = Filter
    toolbar: ClassVar[tuple[Field, ...]] = ()
    creates: ClassVar[tuple[Action, str] | None] = None

    def rows(self) -> QuerySet[Any]:
        """Return every row that the person may see."""
        raise NotImplementedError

    def context(self, **kwargs: Any) -> dict[str, Any]:
        chosen = self.filters.lenient(self.request.GET.dict())
        return {
            "title": self.title,
            "lead": self.lead,
            "columns": self.columns,
            "toolbar": self.toolbar,
            "chosen": chosen,
            "page": page_of(self.request, chosen.applied(self.rows())),
            "may_create": self.creates and may_somewhere(self.actor, *self.creates),
        }
