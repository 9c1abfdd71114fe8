"""Rows that many tests of one file look at, made once for all of them.

A fixture of the module's scope makes them in a transaction that stays open around the file's tests.
pytest-django then makes each test's own transaction a savepoint of it. Each test gets a copy of the
Python objects, so that what it sets on one is not seen by the next.

Tests with `transaction=True` run last (pytest-django sorts them), without these rows: they make
their own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
from django.db import connection, transaction

World = TypeVar("World")
_open: list[ExitStack] = []


def built_once(build: Callable[[], World]) -> Any:
    """A fixture, by module, of what `build` makes in the database."""

    @pytest.fixture(scope="module")
    def built(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
        with django_db_blocker.unblock():
            if len(connection.atomic_blocks) > len(_open):
                pytest.fail("A test has begun its transaction: take this fixture as an argument.")
            if _open:
                # Their order would depend on which process runs which test.
                pytest.fail("The tests of one file use two fixtures of `built_once`: split it.")
            block = transaction.atomic()
            block._from_testcase = True  # type: ignore[attr-defined]
            stack = ExitStack()
            stack.enter_context(block)
            _open.append(stack)
            try:
                world = build()
                # Else every test would check these rows again when it ends.
                connection.check_constraints()
                # As in a test, what waits for the commit is never done.
                connection.run_on_commit = []
                yield world
            finally:
                if stack in _open:
                    undo(stack)

    return built


def copied(world: World) -> World:
    """The same objects, for one test."""
    return copy.deepcopy(world)


def undo(stack: ExitStack) -> None:
    """Roll back one of these transactions."""
    _open.remove(stack)
    transaction.set_rollback(True)
    stack.close()


def undo_all() -> None:
    """Roll back what is open, before a test that commits."""
    for stack in reversed(_open.copy()):
        undo(stack)


def commits(item: pytest.Item) -> bool:
    """Return whether pytest-django leaves this test's transactions to the test."""
    marker = item.get_closest_marker("django_db")
    asked = {"transactional_db", "live_server"} & set(getattr(item, "fixturenames", ()))
    return bool(asked) or (marker is not None and bool(marker.kwargs.get("transaction")))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give a test that commits an empty database."""
    if _open and commits(item):
        undo_all()


def pytest_runtest_call(item: pytest.Item) -> None:
    """Refuse to run a test that could not commit."""
    if _open and commits(item):
        pytest.fail("This test commits; make its rows in it, without a fixture of `built_once`.")
