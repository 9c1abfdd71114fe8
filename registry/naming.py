"""Names that stand once on the whole platform."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.models import Model

from governance.errors import WrongState
from governance.rowsecurity import taken

M = TypeVar("M", bound=Model)


def create_named(model: type[M], name: str, **fields: Any) -> M:
    """Make the row that bears `name`; another department's row, which cannot be seen, has it too.

    Raises:
        WrongState: the name is taken.
    """
    kind = model._meta.verbose_name
    refused = WrongState(
        f"A {kind} named {name} exists already; a second one was not made.",
        code="already_exists",
        hint=f"Choose another name, or add a version to the {kind} that is there.",
    )
    if taken(model, name=name):
        raise refused
    made, created = model._default_manager.get_or_create(name=name, defaults=fields)
    if not created:
        raise refused
    return made
