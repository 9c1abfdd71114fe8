"""A review to decide on, and those who do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from governance.audit.services import Subject
from governance.people.models import Department
from governance.principals import Principal
from governance.reviews.models import Review
from governance.reviews.services import review_open


@pytest.fixture
def submitter(actor: Callable[..., Principal]) -> Principal:
    return actor("Dora", "developer@clinical")


@pytest.fixture
def compliance(actor: Callable[..., Principal]) -> Principal:
    return actor("Cora", "reviewer:compliance")


@pytest.fixture
def risk(actor: Callable[..., Principal]) -> Principal:
    return actor("Rolf", "reviewer:model-risk")


@pytest.fixture
def opened(submitter: Principal, department: Callable[[str], Department]) -> Callable[..., Review]:
    """Opens Dora's review of thing 7, which needs compliance and model risk; changed as asked."""

    def open_review(**changes: Any) -> Review:
        asked: dict[str, Any] = {
            "actor": submitter,
            "subject": Subject("thing", "7", "thing seven"),
            "department": department("clinical"),
            "tier": "limited",
            "digest": "a" * 64,
            "required_approvals": {"compliance": 1, "model-risk": 1},
            "excluded_people": [],
            "checklist": [],
            "due_at": timezone.now() + timedelta(days=7),
        }
        return review_open(**(asked | changes))

    return open_review
