"""Races that no caller may win, with real threads on a real database."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from governance.people import attempts
from governance.people.models import Person
from tests.unit.assay.sign_in_support import Visitor, give_totp, totp_now, with_password

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("policy", "redis"),
    pytest.mark.sweep,
]


@pytest.fixture
def ada(person: Callable[..., Person]) -> Person:
    return with_password(person("Ada", "admin"))


def at_once(number: int, act: Callable[[int], int]) -> list[int]:
    def one(place: int) -> int:
        try:
            return act(place)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        return sorted(pool.map(one, range(number)))


def test_of_many_who_send_one_code_at_once_one_comes_in(ada: Person) -> None:
    give_totp(ada)
    code = totp_now(ada)
    visitors = [Visitor(address=f"192.0.2.{number}") for number in range(8)]
    for visitor in visitors:
        assert visitor.password(ada).status_code == 302

    answers = at_once(
        8, lambda place: visitors[place].post("/sign-in/second-factor", code=code).status_code
    )

    assert answers == [302, *[401] * 7]


def test_parallel_guesses_are_all_counted(ada: Person) -> None:
    def guess(place: int) -> int:
        status: int = Visitor().password(ada, f"guess {place}").status_code
        return status

    answers = at_once(attempts.MAX_FAILURES + 6, guess)

    assert answers == [401] * attempts.MAX_FAILURES + [429] * 6
