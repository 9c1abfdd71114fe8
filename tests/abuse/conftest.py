"""A company to attack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from governance.quotas.reconcile import quotas_reconcile
from tests.abuse.company import attacked_company
from tests.unit.assay.portal_data import Company, as_of_now
from tests.worlds import built_once, copied


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave walks over a whole company to the full run, out of the inner loop."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.sweep)


attacked = built_once(attacked_company)


@pytest.fixture
def company(attacked: Company, db: None, redis: Any) -> Company:
    """Engineering's things, with a secret in them; and budgets' counters that are ready."""
    company = as_of_now(copied(attacked))
    quotas_reconcile(repair=True)
    return company
