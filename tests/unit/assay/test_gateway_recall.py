"""A recall cuts what runs, and nothing runs under it afterward."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.utils import timezone

from assay.gateway.access.reading import read_snapshot
from governance.people.models import RoleAssignment
from registry.versions.models import ModelVersion
from registry.versions.recall import Recalled, recall_radius, version_recall
from tests.proofs import proven
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.test_gateway_keys import CHAT, GOOD, Endless, Stream
from workers.deployments.models import Deployment
from workers.deployments.services import deployments_stop_unservable

pytestmark = pytest.mark.sweep

__all__ = ["stage"]


def recall(stage: Stage, version: ModelVersion) -> Recalled:
    RoleAssignment.objects.get_or_create(person=stage.person, role="admin")
    admin = proven(stage.person)
    digest = recall_radius(actor=admin, version_id=version.pk).digest
    return version_recall(actor=admin, version_id=version.pk, reason="It leaks.", confirm=digest)


def test_a_recall_cuts_what_runs_with_an_error_and_refuses_what_comes(stage: Stage) -> None:
    deployment = stage.deployment(behavior=Endless(stage))
    token = stage.key()
    stream = Stream(stage, token)
    # Its notice is enough: nobody publishes another one here.
    assert recall(stage, deployment.release.version).versions == 1
    assert "is recalled; it may not serve" in stream.end()
    assert '"code": "release_not_servable"' in stream.lines[-1]
    assert "data: [DONE]" not in stream.lines
    refused = stage.post(CHAT, token, json=GOOD)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "release_not_servable")
    outcomes = {entry.outcome for entry in stage.entries(2)}
    assert outcomes == {"canceled", "release_not_servable"}


def test_what_runs_is_cut_also_when_the_deployment_stopped_before_it_was_heard(
    stage: Stage,
) -> None:
    deployment = stage.deployment(behavior=Endless(stage))
    stream = Stream(stage, stage.key())
    # Notices go out after the commit: the gateway never reads it recalled and still live.
    with transaction.atomic():
        recall(stage, deployment.release.version)
        assert deployments_stop_unservable() == 1
    assert "is recalled; it may not serve" in stream.end()
    assert read_snapshot().recalled.keys() == {deployment.pk}


def test_a_stop_without_a_recall_lets_what_runs_end_by_itself(stage: Stage) -> None:
    deployment = stage.deployment()
    Deployment.objects.filter(pk=deployment.pk).update(state="stopped", stopped_at=timezone.now())
    snapshot = read_snapshot()
    assert (snapshot.deployments, snapshot.recalled) == ({}, {})
