"""`assay deployments targets`, `route` and `switch` against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from governance.keys.services import access_token_create
from governance.people.models import Person, RoleAssignment
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


def test_the_command_line_sets_queue_weights(call: Run) -> None:
    with transaction.atomic():
        primary = deployed()
        developer = Person.objects.get(email="dev-clinical@example.org")
        RoleAssignment.objects.create(person=developer, role="operator")
    change = ("deployments", "replicas", str(primary.pk))
    weights = ("--queue-weight", "clinical=3", "--queue-weight", "finance=2")
    _, out, _ = call(*change, *weights, code=0)
    assert "Turns in the queue: clinical 3, finance 2, others 1." in " ".join(out.split())
    primary.refresh_from_db()
    assert primary.queue_weights == {"clinical": 3, "finance": 2}
    call(*change, "--max", "2", code=0)
    primary.refresh_from_db()
    assert (primary.replicas_max, primary.queue_weights["clinical"]) == (2, 3)
    _, _, err = call(*change, "--queue-weight", "clinical", code=1)
    assert "clinical is not a queue weight." in err
    call(*change, "--queue-weight", "", code=0)
    primary.refresh_from_db()
    assert primary.queue_weights == {}
