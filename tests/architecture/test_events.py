"""No service changes a row without an event: functions that take an actor and write are walked."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.sweep

ROOT = Path(__file__).parents[2]
VIEWS = "platform/assay/api/views"
SOURCES = ("governance", "registry", "workers", "platform/assay/accounts", "platform/assay/api")
RECORDERS = frozenset({"audit_record", "audit_record_many"})
WRITES = frozenset(
    {
        "add",
        "bulk_create",
        "bulk_update",
        "clear",
        "create",
        "delete",
        "get_or_create",
        "save",
        "save_state",
        "set_password",
        "update",
        "update_or_create",
    }
)


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the code: the functions that it calls by name, and whether it writes rows."""

    module: str
    line: int
    name: str
    takes_actor: bool
    calls: frozenset[str]
    writes: bool


# Only the person concerned can see these, so they are not recorded: drafts of comments, and that
# somebody has read where they are mentioned.
UNSAID = frozenset({"draft_add", "draft_discard", "draft_edit", "mentions_seen"})


@cache
def functions() -> list[Function]:
    return [
        found
        for root in SOURCES
        for path in (ROOT / root).rglob("*.py")
        if "migrations" not in path.parts
        for found in _functions(path)
    ]


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs]
            yield Function(
                module=str(path.relative_to(ROOT)),
                line=node.lineno,
                name=node.name,
                takes_actor=any(argument.arg == "actor" for argument in arguments),
                calls=frozenset(_named(node)),
                writes=any(_writes(inner) for inner in ast.walk(node)),
            )


def _named(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name):
            yield inner.func.id
        elif isinstance(inner, ast.Call) and _records(inner):
            yield "audit_record"


def _records(call: ast.Call) -> bool:
    """Return whether it is `move` or `record` of a state machine or lifecycle, for an actor."""
    acts = any(keyword.arg == "actor" for keyword in call.keywords)
    return acts and isinstance(call.func, ast.Attribute) and call.func.attr in {"move", "record"}


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    # `found.add(…)` on a set is no row; on a relation it is `members.add`.
    of_rows = node.func.attr not in {"add", "clear", "update"} or _of_rows(node.func)
    return node.func.attr in WRITES and of_rows


def _of_rows(function: ast.expr) -> bool:
    """True when the method is a manager's or a queryset's, as far as its text shows."""
    text = ast.unparse(function)
    return any(mark in text for mark in (".objects.", "filter(", "_groups.", ".members."))


def silent(known: list[Function]) -> dict[str, str]:
    """Functions that take an actor, write, and record no event, themselves or through others."""
    told: set[tuple[str, str]] = set()
    here = {(f.module, f.name) for f in known}

    def records(function: Function, name: str) -> bool:
        if name in RECORDERS:
            return True
        if (function.module, name) in here:
            return (function.module, name) in told
        # Nothing calls an operation of the API, whatever it is named.
        return any(other == name and VIEWS not in module for module, other in told)

    while True:
        more = {
            (f.module, f.name)
            for f in known
            if (f.module, f.name) not in told and any(records(f, name) for name in f.calls)
        }
        if not more:
            break
        told |= more
    return {
        f.name: f"{f.module}:{f.line}"
        for f in known
        if f.takes_actor and f.writes and (f.module, f.name) not in told
    }


def test_the_walk_sees_who_records_and_who_writes() -> None:
    known = functions()
    assert len([f for f in known if f.takes_actor and f.writes]) > 40
    # Without its record, what makes a department would be found.
    cut = [replace(f, calls=frozenset()) if f.name == "department_create" else f for f in known]
    assert "department_create" in silent(cut)


def test_whatever_an_actor_changes_is_recorded() -> None:
    assert silent(functions()).keys() == UNSAID
