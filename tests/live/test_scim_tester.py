"""SCIM, checked by another project's tester."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.clients import asked
from tests.unit.assay.scim_support import TOKEN

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


@pytest.mark.long
@pytest.mark.usefixtures("policy", "redis")
def test_every_check_of_scim2_tester_passes_but_for_those_that_the_docs_list(
    live_server: Any, settings: Any
) -> None:
    """docs/how-to/provisioning.md gives the reason for each of the other checks."""
    settings.SCIM_TOKEN = TOKEN
    report = asked("scim_tester", live_server.url, TOKEN)
    others = [(kind, check, status) for kind, check, status, _ in report["others"]]
    assert others == [
        ("User", "search_with_attributes", "SKIPPED"),
        ("User", "check_remove_attribute", "ERROR"),
        ("User", "check_remove_attribute", "ERROR"),
        ("Group", "search_with_attributes", "SKIPPED"),
    ], report["others"]
    reasons = [reason for *_, status, reason in report["others"] if status == "ERROR"]
    assert ["'active'" in reasons[0], "'emails'" in reasons[1]] == [True, True], reasons
    assert report["passed"] >= 60
