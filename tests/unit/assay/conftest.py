"""The company's story and an office, made once for the tests of one file."""

from __future__ import annotations

import pytest

from tests.unit.assay.portal_data import Company, as_of_now, tell_story
from tests.unit.registry.office import office, office_built
from tests.worlds import built_once, copied

__all__ = ["office", "office_built"]

story = built_once(tell_story)


@pytest.fixture
def company(story: Company, db: None) -> Company:
    """Everyone and everything of the story; changes are undone after the test."""
    return as_of_now(copied(story))
