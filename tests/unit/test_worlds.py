"""Rows that are made once for the tests of a file."""

from __future__ import annotations

import pytest
from django.db import connection

from governance.people.models import Department
from tests.people import find_or_make
from tests.worlds import built_once, copied

built = built_once(lambda: {"clinical": find_or_make("clinical")})


@pytest.fixture
def clinical(built: dict[str, Department], db: None) -> Department:
    return copied(built)["clinical"]


@pytest.mark.parametrize("time", ["first", "second"])
def test_no_test_sees_what_another_changed(clinical: Department, time: str) -> None:
    assert clinical.name == Department.objects.get().name == "Clinical"
    clinical.name = f"Changed by the {time}"
    clinical.save()
    find_or_make("finance")


@pytest.mark.django_db(transaction=True)
def test_a_test_that_commits_finds_an_empty_database() -> None:
    assert not connection.in_atomic_block
    assert not Department.objects.exists()
