"""The watch on the database sees every change, and its undoing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from governance.people.models import Department
from tests.abuse.database import digests, undone
from tests.unit.assay.portal_data import Company


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.create(slug="new", name="New"),
        lambda rows: rows.filter(slug="legal").update(name="Law"),
        lambda rows: rows.filter(slug="legal").delete(),
    ],
    ids=["insert", "update", "delete"],
)
def test_a_change_is_seen_and_so_is_its_undoing(
    company: Company, change: Callable[..., object]
) -> None:
    Department.objects.create(slug="legal", name="Legal")
    before = digests()
    for _ in range(2):
        with undone():
            change(Department.objects)
            changed = digests()
            assert changed.keys() == before.keys()
            assert [name for name in before if changed[name] != before[name]] == [
                "governance_department"
            ]
            with undone():
                Department.objects.create(slug="newer", name="Newer")
                assert digests() != changed
            assert digests() == changed
        assert digests() == before
