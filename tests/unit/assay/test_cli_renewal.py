"""`assay releases show` and `assay releases renew` against a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from registry.releases.models import Release
from tests.unit.assay.api_support import Api
from tests.unit.assay.test_api_releases import people, release
from tests.unit.assay.test_cli import Run, run
from tests.unit.assay.test_cli_recall import signed_in
from tests.unit.assay.test_conditions_surfaces import attested

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sweep,
    pytest.mark.usefixtures("policy"),
]

__all__ = ["attested", "people", "release", "run", "signed_in"]


def test_a_release_is_looked_at_and_then_submitted_again(
    people: dict[str, Api], attested: dict[str, Any], signed_in: Callable[[str], Run]
) -> None:
    number = str(attested["id"])
    assay = signed_in("devi@example.org")
    _, _, err = assay("releases", "renew", number, code=1)
    assert "it cannot be submitted again" in err
    people["dev"].post(f"releases/{number}/withdraw", {"reason": "Later."})
    _, out, err = assay("releases", "renew", number, code=0)
    assert "Carla" in out
    assert "Nothing was submitted" in err
    assert Release.objects.count() == 1
    _, out, _ = assay("releases", "renew", number, "--yes", code=0)
    made = Release.objects.get(renews=int(number))
    assert f"Release {made.pk} renews release {number}" in out
    _, out, _ = assay("releases", "show", str(made.pk), code=0)
    assert f"release {number}" in out
