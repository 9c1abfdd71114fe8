"""Names that are unique on the whole platform."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.models import Model

from governance.errors import WrongState
from governance.rowsecurity import exists_anywhere

M = TypeVar("M", bound=Model)


def create_named(model: type[M], name: str, **fields: Any) -> M:
    """Create a row called `name`, which must be unique even among rows that the caller cannot see.

    Raises:
        WrongState: the name is taken.
    """
    kind = model._meta.verbose_name
    conflict = WrongState(
        f"A {kind} named {name} already exists.",
        code="already_exists",
        hint=f"Choose another name, or add a version to the existing {kind}.",
    )
    if exists_anywhere(model, name=name):
        raise conflict
    row, created = model._default_manager.get_or_create(name=name, defaults=fields)
    if not created:
        raise conflict
    return row
