"""Rules for migrations: expand in one release, contract in a later one.

While a new release is rolled out, processes of the previous one go on reading and writing. A
migration must not take from them what they use, nor require what they do not write, nor lock a
table that grows with use. One that stops them says so: `needs_downtime = "why"`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.contrib.postgres.operations import (
    AddConstraintNotValid,
    AddIndexConcurrently,
    RemoveIndexConcurrently,
)
from django.db import migrations
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED, CheckConstraint, F, Field, Q

# Tables that grow with use: building an index would lock them for minutes.
LARGE = {
    "governance.auditevent",
    "governance.auditname",
    "governance.auditsubtree",
    "governance.usagerecord",
    "registry.batchline",
    "registry.feedback",
    "registry.storedresponse",
    "workers.job",
    "workers.jobevent",
}
LEAST_REASON = 20
# Every value of the first type fits the second.
WIDER = {
    ("SmallIntegerField", "IntegerField"),
    ("SmallIntegerField", "BigIntegerField"),
    ("PositiveSmallIntegerField", "PositiveIntegerField"),
    ("PositiveSmallIntegerField", "PositiveBigIntegerField"),
    ("IntegerField", "BigIntegerField"),
    ("PositiveIntegerField", "PositiveBigIntegerField"),
    ("CharField", "TextField"),
    ("SlugField", "CharField"),
    ("SlugField", "TextField"),
}
_TAKES = (
    migrations.RemoveField,
    migrations.DeleteModel,
    migrations.RenameField,
    migrations.RenameModel,
    migrations.AlterModelTable,
    migrations.AlterUniqueTogether,
    migrations.AlterOrderWithRespectTo,
)
_BREAKING_SQL = re.compile(
    r"\bDROP\s+(?:TABLE|COLUMN|VIEW|TYPE|SCHEMA)\b|\bRENAME\s+(?:TO|COLUMN)\b"
    r"|\bSET\s+NOT\s+NULL\b|\bALTER\s+(?:COLUMN\s+)?\w+\s+(?:SET\s+DATA\s+)?TYPE\b|\bTRUNCATE\b"
    r"|\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+(?!CONCURRENTLY)",
    re.IGNORECASE,
)


@dataclass
class Release:
    """Tables and columns that the migrations of one release made; the previous uses none."""

    models: set[str] = field(default_factory=set)
    fields: set[tuple[str, str]] = field(default_factory=set)


def faults(migration: migrations.Migration, state: ProjectState, release: Release) -> Iterator[str]:
    """Yield what would break the previous release; `state` is the one before, and is moved on.

    A migration that gives its reason has no faults, and is noted in `release` too.
    """
    found = list(_faults(migration, migration.operations, state, release))
    reason = getattr(migration, "needs_downtime", None)
    if reason is None:
        yield from found
    elif len(reason) < LEAST_REASON:
        yield f"needs_downtime says too little: {reason!r}"
    elif not found:
        yield "needs_downtime stands in a migration that needs none"


def _faults(
    migration: migrations.Migration,
    operations: Iterable[Operation],
    state: ProjectState,
    release: Release,
) -> Iterator[str]:
    for operation in operations:
        if isinstance(operation, migrations.SeparateDatabaseAndState):
            inner = _faults(migration, operation.database_operations, state.clone(), release)
            yield from inner
        else:
            yield from _judge(migration, operation, state, release)
        if not operation.reversible:
            yield f"{operation.describe()}: it cannot be undone; give it a reverse"
        operation.state_forwards(migration.app_label, state)


def _judge(
    migration: migrations.Migration, operation: Any, state: ProjectState, release: Release
) -> Iterator[str]:
    app, what = migration.app_label, operation.describe()
    if isinstance(operation, migrations.RunSQL):
        for sql in _statements(operation.sql):
            if breaking := _BREAKING_SQL.search(sql):
                yield f"{what}: {' '.join(breaking[0].split())}"
        return
    if isinstance(operation, migrations.CreateModel):
        release.models.add(f"{app}.{operation.name_lower}")
        return
    model = f"{app}.{getattr(operation, 'model_name_lower', getattr(operation, 'name_lower', ''))}"
    if isinstance(operation, migrations.RenameModel):
        model = f"{app}.{operation.old_name_lower}"
    if model in release.models:
        return
    column = (model, getattr(operation, "name_lower", ""))
    if isinstance(operation, migrations.AddField):
        release.fields.add(column)
        yield from (f"{what}: {fault}" for fault in _added(operation.field))
    elif isinstance(operation, migrations.AlterField):
        if column not in release.fields:
            before = state.models[app, operation.model_name_lower].fields[operation.name]
            yield from (f"{what}: {fault}" for fault in narrowed(before, operation.field))
    elif isinstance(operation, _TAKES):
        if column not in release.fields:
            yield f"{what}: processes of the previous release use it"
    elif isinstance(operation, migrations.AddConstraint):
        named = _fields_of(operation.constraint)
        is_new = (
            model not in LARGE and named and {(model, each) for each in named} <= release.fields
        )
        if not is_new and not isinstance(operation, AddConstraintNotValid):
            yield f"{what}: rows of the previous release may break it, and checking locks the table"
    elif isinstance(operation, migrations.AddIndex | migrations.RemoveIndex):
        at_once = isinstance(operation, AddIndexConcurrently | RemoveIndexConcurrently)
        if model in LARGE and not at_once:
            yield f"{what}: {model} grows with use; change its indexes CONCURRENTLY"


def _fields_of(constraint: Any) -> set[str]:
    """Return the fields that a constraint is about; none where it cannot be told."""
    if isinstance(constraint, CheckConstraint):
        return set(_named_in(constraint.condition))
    return set(getattr(constraint, "fields", ()))


def _named_in(node: Any) -> Iterator[str]:
    if isinstance(node, Q):
        for child in node.children:
            yield from _named_in(child)
    elif isinstance(node, tuple):
        name, value = node
        yield name.partition("__")[0]
        yield from _named_in(value)
    elif isinstance(node, F):
        yield node.name


def _statements(sql: Any) -> Iterator[str]:
    for each in [sql] if isinstance(sql, str) else sql:
        yield each if isinstance(each, str) else each[0]


def _added(new: Field[Any, Any]) -> Iterator[str]:
    if new.many_to_many or new.null or new.db_default is not NOT_PROVIDED:
        return
    if getattr(new, "generated", False):
        return
    yield "the previous release does not write it; make it null, or give it a db_default"


def narrowed(before: Field[Any, Any], after: Field[Any, Any]) -> Iterator[str]:
    """Yield why values that the previous release writes, or wrote, may not fit any more."""
    kinds = (before.get_internal_type(), after.get_internal_type())
    if kinds[0] != kinds[1] and kinds not in WIDER:
        yield f"from {kinds[0]} to {kinds[1]}"
    if before.null and not after.null:
        yield "NOT NULL, and the previous release writes NULL"
    if after.unique and not before.unique:
        yield "unique, and the previous release may write duplicates"
    if before.db_default is not NOT_PROVIDED and after.db_default is NOT_PROVIDED:
        yield "without the db_default that the previous release may rely on"
    was, now = before.max_length, after.max_length
    if now is not None and (was is None or now < was):
        yield f"at most {now} characters, {was} before"
    digits = (getattr(before, "max_digits", None), getattr(after, "max_digits", None))
    if None not in digits and digits[1] < digits[0]:  # type: ignore[operator]
        yield f"at most {digits[1]} digits, {digits[0]} before"
