"""A deployment runs on the engine that its release names, on a worker that offers it."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from assay.cli.doctor import check_engines, check_readers
from assay.cli.findings import CheckFailed, NotSetUp
from registry.catalog import TASKS, task_catalog
from registry.sandbox import landlock, readers
from tests.fleets import assign_everything
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.celery_tasks import engines
from workers.celery_tasks.engines import engine_settings, offered_engines
from workers.celery_tasks.hosting import EngineHost
from workers.control.direct import DirectControl
from workers.deployments.models import Deployment, WorkerKey
from workers.deployments.plans import load_plan
from workers.deployments.reconciler import Reconciler
from workers.deployments.services import deployment_create, replicas_heartbeat
from workers.deployments.worker_keys import worker_key_register
from workers.placement.assigning import placements_update
from workers.placement.capacity import Capacity

pytestmark = pytest.mark.django_db
KEY = "ab" * 32


def deployed(**choice: Any) -> Deployment:
    approved = release(adapter(), **choice)
    return deployment_create(actor=company.developer(), release_id=approved.pk)


def offer(worker: str, *engines: str) -> None:
    capacity = Capacity(memory=10**9)
    worker_key_register(worker=worker, public_key=KEY, engines=("own",), capacity=capacity)
    replicas_heartbeat(worker=worker, engines=engines)


def test_the_plan_is_what_the_release_names() -> None:
    plan = load_plan(deployed(precision="bfloat16"))
    assert (plan.engine, plan.engine_name) == (TASKS["text-generation"].engine, "own")
    assert plan.dtype == "bfloat16"
    plan = load_plan(deployed(name="second", engine="llama.cpp"))
    assert plan.engine == "workers.engines.servers.llama_cpp:LlamaCppEngine"
    assert (plan.engine_name, plan.dtype) == ("llama.cpp", None)


def test_the_plan_of_a_classifiers_adapter_loads_its_encoder_and_names_both_digests() -> None:
    encoder = company.version(company.model("minilm", "embeddings"))
    sorter = company.model("sorter", "text-classification")
    tuned = company.version(sorter, "adapter", base=encoder)
    plan = load_plan(deployment_create(actor=company.developer(), release_id=release(tuned).pk))
    task = TASKS["text-classification"]
    assert (plan.engine, plan.runner) == (task.engine, task.runner)
    assert plan.adapter is not None
    assert (plan.weights.digest, plan.adapter.digest) == (encoder.digest, tuned.digest)
    assert plan.adapter.manifest.base_digest == encoder.digest
    assert {"BertModel", "BertForSequenceClassification"} <= set(plan.architectures)
    whole = company.version(sorter, "full", base=encoder)
    plan = load_plan(
        deployment_create(actor=company.developer(), release_id=release(whole, "whole").pk)
    )
    assert (plan.adapter, plan.architectures) == (None, task.architectures)


def test_a_deployment_states_that_no_running_worker_offers_its_engine() -> None:
    offer("e1", "own")
    deployment = deployed(engine="llama.cpp")
    assert deployment.message == "Waiting for an engine worker to load it."
    placements_update()
    deployment.refresh_from_db()
    assert deployment.message.startswith("No running engine worker offers llama.cpp.")
    offer("e2", "own", "llama.cpp")
    placements_update()
    deployment.refresh_from_db()
    assert deployment.message == "Waiting for an engine worker to load it."
    WorkerKey.objects.filter(worker="e2").update(seen_at=timezone.now() - timedelta(minutes=1))
    placements_update()
    deployment.refresh_from_db()
    assert deployment.message.startswith("No running engine worker offers llama.cpp.")


def test_a_worker_leaves_alone_what_it_offers_no_engine_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = TASKS["text-generation"]
    engine = "tests.unit.workers.echo:EchoEngine"
    monkeypatch.setitem(task_catalog().tasks, task.name, dataclasses.replace(task, engine=engine))
    other, own = deployed(engine="llama.cpp"), deployed(name="second")
    host = EngineHost()
    loop = Reconciler(
        host, DirectControl(), worker="e1", consume=lambda queue: None, cease=lambda queue: None
    )
    assign_everything("e1")
    loop.settle()
    assert [each.deployment_id for each in loop._missing] == [own.pk]
    assert not other.replicas.exists()
    host.close()


def test_llama_cpp_is_offered_where_it_is_installed_with_its_limits() -> None:
    assert offered_engines()[:2] == ["own", "llama.cpp"]
    assert engine_settings("own") == {}
    assert not engine_settings("llama.cpp")["limits"].unconfined
    assert engine_settings("llama.cpp")["limits"].memory == 16 * 1024**3
    assert engine_settings("vllm")["python"] == ""
    assert engine_settings("vllm")["limits"].start_s == engines.COMPILING_START_S


def test_servers_are_offered_without_landlock_only_where_a_setting_allows_it(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 2)
    assert offered_engines() == ["own"]
    with pytest.raises(NotSetUp, match="cannot confine engines, so only Assay's own are offered"):
        check_engines()
    settings.ENGINE_SERVER_UNCONFINED = True
    with pytest.raises(CheckFailed, match="no Landlock"):
        check_engines()
    assert offered_engines()[:2] == ["own", "llama.cpp"]
    assert engine_settings("vllm")["limits"].unconfined


def test_the_checks_say_where_readers_of_files_are_not_confined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    confined = landlock.abi() >= landlock.LEAST_ABI
    assert (check_readers() == "confined, on this machine") is confined
    with monkeypatch.context() as changed:
        changed.setattr(readers, "filters", lambda: False)
        if confined:
            assert "no filter of system calls" in check_readers()
    monkeypatch.setattr(landlock, "abi", lambda: 2)
    assert check_readers().startswith("not confined on this machine. This kernel has no Landlock")
