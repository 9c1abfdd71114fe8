"""Faults of a declaration, and the checks of single values."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

# At most 40 characters, like the database columns of models and datasets.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
METHOD = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,38}[a-z0-9])?")
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
TITLE_MAX, SENTENCE_MAX = 80, 400
# Maximum length of an exception's text from a plug-in's code.
RAISED_MAX = 300


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a task: the field (`where`), a sentence (`what`), and how to fix it."""

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.fix}"


def raised(error: BaseException) -> str:
    """Return an exception as one line of bounded length, even if its `__str__` raises."""
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:
        text = type(error).__name__
    return "".join(each if each.isprintable() else " " for each in text)[:RAISED_MAX]


def guarded(where: str, fix: str, check: Callable[[], Iterable[Fault]]) -> Iterator[Fault]:
    """Yield the faults that `check` finds. An exception of the plug-in's code is a fault too,
    unless an earlier fault is its likely cause.

    Catches every exception, because plug-in code can also raise `SystemExit`.
    """
    faults: list[Fault] = []
    try:
        for fault in check():
            faults.append(fault)  # noqa: PERF402 (one by one: those before an exception are kept)
    except BaseException as error:
        faults = faults or [Fault(where, f"It raised {raised(error)}.", fix)]
    yield from faults


def call_faults(make: Callable[[], object]) -> Iterator[Fault]:
    """Call `make` and yield nothing; `guarded` reports an exception that it raises."""
    make()
    yield from ()


def text_faults(
    where: str, value: Any, most: int, *, may_be_empty: bool = False
) -> Iterator[Fault]:
    """Yield a fault unless the value is printable text of at most `most` characters."""
    if not isinstance(value, str):
        yield Fault(where, f"{quoted(value)} is not text.", "Use a str.")
    elif not value.strip() and not may_be_empty:
        yield Fault(where, "It is empty.", "Write a text for people.")
    elif len(value) > most:
        yield Fault(where, f"It has {len(value)} characters.", f"Use at most {most}.")
    elif not value.isprintable():
        yield Fault(
            where,
            f"{value!r} has characters that cannot be shown.",
            "Use printable characters on one line, without marks that change the text direction.",
        )


def name_faults(where: str, value: Any, pattern: re.Pattern[str], rule: str) -> Iterator[Fault]:
    """Yield a fault unless the value matches `pattern`, which `rule` describes in words."""
    if not (isinstance(value, str) and pattern.fullmatch(value)):
        yield Fault(where, f"{quoted(value)} is not a valid name.", f"Use {rule}.")


def names_faults(
    where: str, values: Any, pattern: re.Pattern[str], rule: str, *, may_be_empty: bool = False
) -> Iterator[Fault]:
    """Yield faults unless the value is a tuple of names that match `pattern`."""
    yield from members_faults(where, values, str, may_be_empty=may_be_empty)
    for each in values if isinstance(values, tuple) else ():
        if isinstance(each, str):
            yield from name_faults(where, each, pattern, rule)


def dotted_faults(where: str, value: Any) -> Iterator[Fault]:
    """Yield a fault unless the value has the form of a dotted name."""
    if not (isinstance(value, str) and DOTTED.fullmatch(value)):
        yield Fault(
            where,
            f"{quoted(value)} is not a dotted name.",
            "Write `package.module:name`, such as `mytask.runner:MyRunner`.",
        )


def members_faults(
    where: str, value: Any, kind: type, *, may_be_empty: bool = False
) -> Iterator[Fault]:
    """Yield faults unless the value is a tuple of instances of `kind`."""
    if not isinstance(value, tuple):
        yield Fault(where, f"{quoted(value)} is not a tuple.", f"Use a tuple of {kind.__name__}.")
        return
    if not value and not may_be_empty:
        yield Fault(where, "It is empty.", f"Name at least one {kind.__name__}.")
    for number, each in enumerate(value):
        if not isinstance(each, kind):
            yield Fault(
                f"{where}[{number}]", f"{quoted(each)} is not a {kind.__name__}.", _one_of(kind)
            )


def member_faults(where: str, value: Any, kind: type) -> Iterator[Fault]:
    """Yield a fault unless the value is an instance of `kind`."""
    if not isinstance(value, kind):
        yield Fault(where, f"{quoted(value)} is not a {kind.__name__}.", _one_of(kind))


def repeated_faults(where: str, values: Iterable[Any]) -> Iterator[Fault]:
    """Yield a fault for each value that occurs twice."""
    seen, reported = set(), set()
    for value in values:
        if value in seen and value not in reported:
            reported.add(value)
            yield Fault(where, f"{quoted(value)} occurs twice.", "Give each one a name of its own.")
        seen.add(value)


def callable_faults(where: str, value: Any, arguments: str) -> Iterator[Fault]:
    """Yield a fault unless the value can be called with these positional `arguments`."""
    fix = f"Use a function of ({arguments})."
    if not callable(value):
        yield Fault(where, f"{quoted(value)} cannot be called.", fix)
        return
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return  # Some callables written in C have no signature.
    try:
        signature.bind(*arguments.split(", "))
    except TypeError:
        yield Fault(where, f"It takes {signature}.", fix)


def quoted(value: Any) -> str:
    """Return a value's `repr`, shortened, for a fault's text; its type's name if `repr` raises."""
    try:
        text = repr(value)
    except BaseException:
        text = f"a {type(value).__name__}"
    return text if len(text) <= TITLE_MAX else f"{text[:TITLE_MAX]}…"


def _one_of(kind: type) -> str:
    if issubclass(kind, Enum):
        return f"Use one of {', '.join(f'{kind.__name__}.{each.name}' for each in kind)}."
    return f"Use an instance of {kind.__name__}."
