"""Nothing serves that the controller has not confirmed lately."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone

from registry.canonical import json_digest
from registry.releases.models import Release
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.test_gateway_keys import CHAT, GOOD, Endless, Stream
from workers.deployments.models import ServingLease

pytestmark = pytest.mark.sweep

__all__ = ["stage"]


def test_when_the_controller_is_dead_serving_ends_with_the_lease(
    stage: Stage, settings: Any
) -> None:
    settings.GATEWAY_SNAPSHOT_TTL_S = 3600  # Only a change has leases read.
    stage.deployment(behavior=Endless(stage))
    token = stage.key()
    stream = Stream(stage, token)
    ends = timezone.now() + timedelta(seconds=2)
    ServingLease.objects.update(servable_until=ends)
    stage.notify()
    # Nobody publishes anything: the gateway compares the lease with its own clock.
    assert "was not confirmed" in stream.end()
    assert '"code": "release_not_confirmed"' in stream.lines[-1]
    # A second less: the gateway counts by a clock that is never set.
    assert timezone.now() > ends - timedelta(seconds=1)
    refused = stage.post(CHAT, token, json=GOOD)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "release_not_confirmed"
    assert int(refused.headers["retry-after"]) > 0
    listed = httpx.get(f"{stage.url}/v1/models", headers={"authorization": f"Bearer {token}"})
    assert [model["usable"] for model in listed.json()["data"]] == [False]


def test_a_deployment_without_a_lease_does_not_serve(stage: Stage) -> None:
    stage.deployment()
    ServingLease.objects.all().delete()
    stage.notify()
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 503


def test_a_release_that_cannot_be_read_ends_itself_alone(stage: Stage) -> None:
    bad = stage.deployment("bad", behavior=None)
    stage.deployment()
    Release.objects.filter(pk=bad.release_id).update(dossier={}, dossier_digest=json_digest({}))
    stage.notify()
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    refused = stage.post(CHAT, token, json={**GOOD, "model": "bad"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "release_not_servable")
    assert "cannot be read" in refused.json()["error"]["message"]
