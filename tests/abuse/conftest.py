"""A company to attack."""

from __future__ import annotations

from typing import Any

import pytest

from governance.quotas.reconcile import quotas_reconcile
from tests.abuse.company import attacked_company
from tests.unit.assay.portal_data import Company


@pytest.fixture(autouse=True)
def _cheap_hashes(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def company(db: None, redis: Any) -> Company:
    """Engineering's things, with a secret in them; and budgets' counters that are ready."""
    company = attacked_company()
    quotas_reconcile(repair=True)
    return company
