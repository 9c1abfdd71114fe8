"""`assay deployments targets`, `route` and `switch` against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from governance.keys.services import access_token_create
from governance.people.models import Person
from tests.proofs import fresh_proof
from tests.unit.assay.test_cli import Run, run
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.unit.workers.test_routing import deployed, serving
from workers.deployments.models import Deployment

__all__ = ["run"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


@pytest.fixture
def call(redis: object, live_server: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `assay …` as a developer who has just given a second factor."""
    with transaction.atomic():
        company.developer()
        developer = Person.objects.get(email="dev-clinical@example.org")
        _, token = access_token_create(person=developer, name="cli", proof=fresh_proof())
    monkeypatch.setenv("ASSAY_SERVER", live_server.url)
    monkeypatch.setenv("ASSAY_TOKEN", token)
    return run


def test_the_command_line_changes_shows_and_switches_targets(call: Run, tmp_path: Path) -> None:
    with transaction.atomic():
        primary, new = deployed(), release(adapter(b"new"))
    file = tmp_path / "targets.json"
    file.write_text(json.dumps({"targets": [{"release": new.pk, "role": "canary", "weight": 5}]}))
    number = str(primary.pk)
    _, out, _ = call("deployments", "route", number, str(file), "--reason", "Try it", code=0)
    assert "The targets of docs are changed (revision 1)." in out
    _, out, _ = call("deployments", "targets", number, "--json", code=0)
    assert [(each["role"], each["share"]) for each in json.loads(out)] == [
        ("primary", 95),
        ("canary", 5),
    ]
    stale = ("--revision", "0", "--reason", "Again")
    _, _, err = call("deployments", "route", number, str(file), *stale, code=4)
    assert "have changed since revision 0" in err
    target = Deployment.objects.get(target_of=primary)
    serving(target)
    _, out, _ = call(
        "deployments", "switch", number, str(target.pk), "--reason", "It is better", code=0
    )
    assert "now answers requests to docs." in out
