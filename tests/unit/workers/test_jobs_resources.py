"""The machines that a job asks for: checked at the request, carried by the order, charged."""

from __future__ import annotations

from typing import Any

import pytest

from governance.errors import InvalidInput, WrongState
from governance.quotas.models import BudgetHold
from registry.datasets.models import Dataset
from registry.versions.models import ModelVersion, VersionState
from tests.unit.workers import company
from workers.jobs.leases import job_claim
from workers.jobs.models import Job
from workers.jobs.orders import order_make
from workers.jobs.requests import fine_tune_request
from workers.nodes.job_side import node_job_claim
from workers.nodes.models import Node

pytestmark = pytest.mark.django_db


def requested(method: str = "lora", **resources: Any) -> Job:
    task = "text-generation"
    return fine_tune_request(
        actor=company.developer(),
        model=company.model("docs", task),
        base_version=company.version(company.model("smol", task)),
        method=method,
        dataset_version=company.data(f"pairs-{Dataset.objects.count()}", task),
        hyperparameters={},
        resources=resources,
    )


def test_a_request_within_the_installation_reaches_the_order_and_the_budget(settings: Any) -> None:
    settings.JOB_MAX_DEVICES, settings.JOB_MAX_NODES = 4, 2
    job = requested(devices=2, nodes=2, minutes=30)
    assert job.spec["resources"] == {"devices": 2, "nodes": 2, "minutes": 30}
    assert BudgetHold.objects.get().devices == 4
    claim = job_claim(job_id=job.pk, worker="w1")
    assert claim is not None
    order = order_make(claim)
    assert (order.resources.processes, order.resources.minutes) == (4, 30)


@pytest.mark.parametrize(
    ("method", "resources", "field", "sentence"),
    [
        ("lora", {"devices": 5}, "devices", "more than 4 devices on one machine"),
        ("lora", {"nodes": 3}, "nodes", "more than 2 machines"),
        ("prompt-tuning", {"devices": 2}, "devices", "runs in one process"),
        ("lora", {"minutes": 0}, "minutes", "within the bounds"),
        ("lora", {"gpus": 2}, "gpus", "within the bounds"),
    ],
)
def test_what_no_machine_can_ever_give_is_refused_at_its_field(
    settings: Any, method: str, resources: dict[str, int], field: str, sentence: str
) -> None:
    settings.JOB_MAX_DEVICES, settings.JOB_MAX_NODES = 4, 2
    with pytest.raises(InvalidInput) as refused:
        requested(method, **resources)
    assert sentence in refused.value.fields[f"resources.{field}"][0]
    assert not Job.objects.exists()


def test_a_job_does_not_run_on_a_version_that_was_recalled_after_the_request() -> None:
    job = requested()
    ModelVersion.objects.filter(pk=job.spec["base"]).update(state=VersionState.RECALLED)
    claim = job_claim(job_id=job.pk, worker="w1")
    assert claim is not None
    with pytest.raises(WrongState, match="jobs use only trusted versions"):
        order_make(claim)


def enrolled(name: str, devices: int, memory_gib: int, **changes: Any) -> Node:
    """A node that last reported this."""
    facts = {"devices": [{}] * devices, "memory_bytes": memory_gib * 1024**3}
    given = {"state": "enrolled", "public_key": name.ljust(64, "0"), "facts": facts}
    creator = company.person("ada", "admin").person_id
    return Node.objects.create(name=name, created_by_id=creator, **{**given, **changes})


def test_a_node_of_more_devices_and_memory_than_the_settings_name_can_be_asked_for(
    settings: Any,
) -> None:
    settings.JOB_MAX_MEMORY_GIB = 16
    enrolled("gpu-8", 8, 256)
    enrolled("gone", 16, 512, state="revoked")
    assert requested(devices=8, memory_gib=256).spec["resources"] == {
        "devices": 8,
        "memory_gib": 256,
    }
    with pytest.raises(InvalidInput, match="more than 8 devices on one machine"):
        requested(devices=9)
    with pytest.raises(InvalidInput, match="more than 256 GiB on one machine"):
        requested(memory_gib=257)


def test_memory_that_is_not_known_refuses_nothing() -> None:
    enrolled("gpu-8", 8, 256)
    assert requested(memory_gib=512).spec["resources"] == {"memory_gib": 512}


def test_a_node_claims_no_job_that_it_cannot_fit(settings: Any) -> None:
    slow, small, large = (
        enrolled("gpu-2", 8, 32),
        enrolled("gpu-1", 1, 256),
        enrolled("gpu-8", 8, 256),
    )
    job = requested(devices=4, memory_gib=64)
    for node in (slow, small):
        assert node_job_claim(node=node, job_id=job.pk, worker="c") is None
    taken = node_job_claim(node=large, job_id=job.pk, worker="c")
    assert taken is not None
    assert taken[0].worker == "gpu-8/c"
