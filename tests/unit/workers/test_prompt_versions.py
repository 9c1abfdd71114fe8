"""Prompt versions: made by a service, registered by the controller, filled in by workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, WrongState
from registry.manifests import ManifestMismatch
from registry.versions.models import ModelVersion
from registry.versions.prompts import prompt_of
from tests.stored import version_part
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, dossier_of, release
from tests.unit.workers.sealed import Wire, answering
from tests.unit.workers.test_tasks_answering import request_for
from workers.celery_tasks.hosting import EngineHost
from workers.control.protocol import LoadPlan
from workers.deployments.plans import load_plan
from workers.deployments.services import deployment_create
from workers.jobs.models import Job
from workers.jobs.prompts import prompt_version_create
from workers.wire import Event, Failed, InferenceRequest, RequestStarted

pytestmark = pytest.mark.django_db
DOCUMENT: dict[str, Any] = {
    "system": "You write for {{team}}.",
    "template": "Say: {{input}}",
    "variables": [{"name": "team", "max_length": 20}],
    "decoding": {"temperature": 0.25, "fixed": ["temperature"]},
}


def base() -> ModelVersion:
    smol = company.model("smol", "text-generation", "platform", shared=True)
    return smol.versions.first() or company.version(smol)


def requested(**changes: Any) -> Job:
    asked: dict[str, Any] = {
        "actor": company.developer(),
        "model": company.model("letters", "text-generation"),
        "base_version": base(),
        "document": DOCUMENT,
    }
    return prompt_version_create(**{**asked, **changes})


def registered(job: Job) -> ModelVersion:
    """The version that the controller makes of the job, without MLflow."""
    result = job.result
    assert result is not None
    return ModelVersion.objects.create(
        model_id=job.spec["model"],
        number=1,
        kind="prompt",
        base_id=job.spec["base"],
        digest=job.spec["digest"],
        manifest=result["manifest"],
        size_bytes=1,
        parameters=result["parameters"],
        license="Apache-2.0",
        created_by=job.created_by,
    )


def test_a_prompt_is_stored_under_its_digest_and_waits_for_the_controller() -> None:
    job = requested(note="The first one")
    job.refresh_from_db()
    assert (job.kind, job.state, job.department.slug) == ("prompt", "finishing", "clinical")
    file = version_part(job.spec["digest"], "prompt.json")
    assert json.loads(file.read_bytes())["system"] == "You write for {{team}}."
    assert job.result["manifest"]["base"] == base().digest
    event = AuditEvent.objects.get(action="job:create")
    assert job.spec["digest"].encode() in bytes(event.canonical)
    assert b"You write" not in bytes(event.canonical)


def test_the_same_prompt_on_the_same_base_is_stored_once() -> None:
    assert requested().spec["digest"] == requested().spec["digest"]
    assert requested(base_version=adapter()).spec["digest"] != requested().spec["digest"]


def test_a_base_of_another_department_does_not_exist() -> None:
    hidden = company.version(company.model("secret", "text-generation", "finance"))
    with pytest.raises(NotFound):
        requested(base_version=hidden)
    with pytest.raises(NotFound):
        requested(model=company.model("theirs", "text-generation", "finance"))
    assert not Job.objects.exists()


def test_what_no_prompt_can_stand_on_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidInput, match="takes no prompts"):
        requested(model=company.model("faces", "image-classification"))
    encoder = company.version(company.model("minilm", "embeddings"))
    with pytest.raises(InvalidInput, match="is of task embeddings"):
        requested(base_version=encoder)
    with pytest.raises(InvalidInput, match="is a prompt; choose its base"):
        requested(base_version=registered(requested()))
    with pytest.raises(InvalidInput, match="used but not declared") as refused:
        requested(document={**DOCUMENT, "variables": []})
    assert refused.value.fields
    recalled = base()
    ModelVersion.objects.filter(pk=recalled.pk).update(state="recalled")
    recalled.refresh_from_db()
    with pytest.raises(WrongState, match="is recalled"):
        requested(base_version=recalled)


def test_the_row_shows_exactly_the_bytes_of_the_digest() -> None:
    version = registered(requested())
    document = prompt_of(version)
    assert document is not None
    assert document.system == "You write for {{team}}."
    assert prompt_of(base()) is None
    version.parameters["system"] = "You obey {{team}}."
    with pytest.raises(ManifestMismatch, match="does not match its digest"):
        prompt_of(version)


def test_a_dossier_holds_the_whole_prompt_and_none_that_its_digest_does_not_name() -> None:
    version = registered(requested())
    dossier = release(version).dossier
    assert dossier["training"]["parameters"]["system"] == "You write for {{team}}."
    assert dossier["identity"]["bases"][0]["digest"] == base().digest
    version.parameters["template"] = "Shout: {{input}}"
    with pytest.raises(ManifestMismatch):
        dossier_of(version)


def plan_of(version: ModelVersion) -> LoadPlan:
    made = deployment_create(actor=company.developer(), release_id=release(version).pk)
    return load_plan(made)


def test_a_prompt_is_loaded_on_the_weights_below_it_whatever_stands_between() -> None:
    plain = plan_of(registered(requested()))
    assert (plain.weights.digest, plain.adapter) == (base().digest, None)
    assert plain.prompt is not None
    assert plain.top.digest == plain.digest == plain.prompt.digest


def test_a_prompt_on_an_adapter_loads_all_three() -> None:
    tuned = adapter()
    plan = plan_of(registered(requested(base_version=tuned)))
    assert plan.adapter is not None
    assert tuned.base is not None
    assert (plan.adapter.digest, plan.weights.digest) == (tuned.digest, tuned.base.digest)


@pytest.fixture
def host() -> Iterator[EngineHost]:
    host = EngineHost()
    host.lease({pk: float("inf") for pk in range(1, 1000)})
    yield host
    host.close()


def ends(redis: Redis, host: EngineHost, request: InferenceRequest) -> list[Event]:
    wire = Wire()
    with answering(redis, host) as answerer:
        answerer.answer(*wire.open(request))
    return [event for event in wire.read(redis) if not isinstance(event, RequestStarted)]


@pytest.mark.parametrize(
    ("inputs", "options", "code"),
    [
        ({}, {}, "missing_variable"),
        ({"variables": {"team": "x", "more": "y"}}, {}, "unknown_variable"),
        ({"variables": {"team": "x" * 21}}, {}, "variable_too_long"),
        (
            {"variables": {"team": "x"}},
            {"temperature": 0.5, "stated": ["temperature"]},
            "setting_fixed",
        ),
    ],
)
def test_a_request_that_does_not_fit_the_prompt_is_a_clear_400(
    redis: Redis, host: EngineHost, inputs: dict[str, Any], options: dict[str, Any], code: str
) -> None:
    plan = echoing(plan_of(registered(requested())))
    host.load(plan)
    said = {"messages": [{"role": "user", "content": "hello"}], **inputs}
    request = request_for(plan, inputs=said, options=options)
    (failed,) = ends(redis, host, request)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.status) == (code, 400)


def test_variables_for_a_deployment_without_a_prompt_are_refused(
    redis: Redis, host: EngineHost
) -> None:
    plan = echoing(plan_of(adapter()))
    host.load(plan)
    said = {"messages": [{"role": "user", "content": "hello"}], "variables": {"team": "x"}}
    (failed,) = ends(redis, host, request_for(plan, inputs=said))
    assert isinstance(failed, Failed)
    assert (failed.code, failed.status) == ("unknown_parameter", 400)


def echoing(plan: LoadPlan) -> LoadPlan:
    return replace(plan, engine="tests.unit.workers.echo:EchoEngine", architectures=())


def test_prompts_and_adapters_of_one_base_share_its_engine(redis: Redis, host: EngineHost) -> None:
    tuned = adapter()
    assert tuned.base is not None
    first = echoing(plan_of(registered(requested(base_version=tuned.base))))
    host.load(first)
    second = echoing(plan_of_named(tuned, "second"))
    host.load(second)
    found = [host.find(plan.deployment_id) for plan in (first, second)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].engine is found[1].engine
    assert host.loaded() == {first.deployment_id: first.digest, second.deployment_id: tuned.digest}
    assert found[0].prompt is not None


def plan_of_named(version: ModelVersion, name: str) -> LoadPlan:
    made = deployment_create(actor=company.developer(), release_id=release(version, name=name).pk)
    return load_plan(made)
