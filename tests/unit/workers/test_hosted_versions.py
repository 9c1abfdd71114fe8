"""Hosted versions in jobs, plans, placement and control: calls at intake, and no training."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from django.utils import timezone

from assay.gateway.access.deployment_entries import provider_tariff
from governance.credentials.models import Credential
from governance.errors import (
    InvalidInput,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    Unavailable,
    WrongState,
)
from governance.people.models import Person
from governance.quotas.models import BudgetHold
from governance.quotas.prices import FREE, Tariff
from governance.quotas.selectors import tariff_for
from registry.catalog import get_task
from registry.catalog.hosted import HOSTED_FILE, HostedDescription, Operation
from registry.datasets.models import Dataset, DatasetVersion
from registry.intake.models import Intake, IntakeProbe, IntakeState
from registry.manifests import Manifest
from registry.versions.models import ModelVersion
from tests.database_roles import acting_as
from tests.unit.registry.hosted_world import (
    GENERATE,
    answered,
    described,
    described_as,
    file_of,
    hosted_version,
)
from tests.unit.registry.objects import stored
from tests.unit.workers import company
from tests.unit.workers.releases import release
from workers.control.direct import DirectControl
from workers.control.egress_jobs import EgressJobs
from workers.deployments.models import Deployment
from workers.deployments.plans import load_plan
from workers.deployments.services import deployment_create
from workers.jobs import workspace
from workers.jobs.budgets import reference_of
from workers.jobs.finishing import job_finish
from workers.jobs.hosted import evaluation_department, provider_used
from workers.jobs.leases import job_claim
from workers.jobs.line import job_waits
from workers.jobs.models import Job, JobState
from workers.jobs.prompts import prompt_bases, prompt_version_create
from workers.jobs.requests import (
    evaluate_request,
    fine_tune_request,
    hosted_request,
    intake_request,
)
from workers.jobs.sweeping import job_sweep
from workers.placement.needs import OWN_FIXED, Layer, need_of
from workers.placement.selectors import need_of_deployment
from workers.remote.control import RemoteControl
from workers.run.execution import _hosted_intake
from workers.run.outcome import result_checked

pytestmark = pytest.mark.django_db
CANONICAL = HostedDescription.read(described()).canonical()


def gpt(where: str = "clinical", **changes: Any) -> ModelVersion:
    return hosted_version(
        company.model(f"gpt-{where}", GENERATE, where), Person.objects.earliest("pk"), **changes
    )


def deployed(of: ModelVersion, name: str = "assistant") -> Deployment:
    approved = release(of, name, engine="hosted")
    return deployment_create(actor=company.developer(), release_id=approved.pk)


def prompt_on(of: ModelVersion) -> ModelVersion:
    """A registered prompt on a version."""
    job = prompt_version_create(
        actor=company.developer(),
        model=company.model("letters", GENERATE),
        base_version=of,
        document={"system": "Answer briefly."},
    )
    assert job.result is not None
    return ModelVersion.objects.create(
        model_id=job.spec["model"],
        number=1,
        kind="prompt",
        base=of,
        digest=job.spec["digest"],
        manifest=job.result["manifest"],
        size_bytes=1,
        parameters=job.result["parameters"],
        license="Apache-2.0",
        created_by=job.created_by,
    )


def requested(**changes: Any) -> tuple[Intake, Job]:
    intake, job = hosted_request(
        **{
            "actor": company.developer(),
            "model": company.model("gpt", GENERATE),
            "description": described(),
            **changes,
        }
    )
    assert job is not None
    return intake, job


def test_a_request_delivers_the_canonical_description() -> None:
    intake, job = requested()
    sha256 = hashlib.sha256(CANONICAL).hexdigest()
    assert intake.files == [{"name": HOSTED_FILE, "size": len(CANONICAL), "sha256": sha256}]
    assert (intake.source, intake.license) == (
        "Example AI, api.example.com",
        "Data processing addendum of 2026",
    )
    assert (intake.state, job.kind) == (IntakeState.CHECKING, "intake")


def test_a_wrong_description_is_refused_by_field_and_a_foreign_model_before_it_is_read() -> None:
    company.developer()
    for description, field in (
        (described(base_url="x"), "base_url"),
        (described(shutdown_on="2020-01-01"), "shutdown_on"),
        ({"provider": "x"}, "model"),
    ):
        with pytest.raises(InvalidInput) as refused:
            requested(description=description)
        assert field in refused.value.fields
    with pytest.raises(NotFound):
        requested(model=company.model("theirs", GENERATE, "finance"), description={})
    with pytest.raises(InvalidInput, match="operation chat cannot serve the task embeddings"):
        requested(model=company.model("minilm", "embeddings"))
    with pytest.raises(InvalidInput, match="cannot serve the task text-classification"):
        requested(model=company.model("labels", "text-classification"))
    with pytest.raises(InvalidInput, match="no GGUF"):
        intake_request(
            actor=company.developer(),
            model=company.model("gpt", GENERATE),
            source="x",
            license="x",
            files=[_Upload(file_of())],
            keep_gguf=True,
        )
    assert not Intake.objects.exists()


class _Upload:
    def __init__(self, content: bytes) -> None:
        self.name, self.size, self._content = HOSTED_FILE, len(content), content

    def chunks(self) -> list[bytes]:
        return [self._content]


def test_the_job_makes_the_canonical_file_and_the_intake_waits_for_the_provider(
    tmp_path: Path,
) -> None:
    intake, job = requested()
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / HOSTED_FILE).write_bytes(file_of())
    task = get_task(GENERATE)
    result = result_checked("intake", _hosted_intake(tmp_path / "in", tmp_path / "out", [], task))
    assert (tmp_path / "out" / HOSTED_FILE).read_bytes() == CANONICAL
    manifest = Manifest.from_json(result["manifest"])
    assert manifest.digest == stored({HOSTED_FILE: CANONICAL}).digest
    Job.objects.filter(pk=job.pk).update(state=JobState.FINISHING, result={**result, "fence": 1})
    folder = workspace.output_folder(job.pk, 1)
    folder.mkdir(parents=True)
    (folder / HOSTED_FILE).write_bytes(CANONICAL)
    assert job_finish(job.pk) == JobState.SUCCEEDED
    intake.refresh_from_db()
    assert intake.state == IntakeState.PROBING
    assert intake.hosted == HostedDescription.read(described()).model_dump(mode="json")


def test_a_description_of_another_task_is_rejected_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / HOSTED_FILE).write_bytes(file_of())
    checked = _hosted_intake(tmp_path, tmp_path, [], get_task("embeddings"))
    assert checked["rejected"] == "The operation chat cannot serve the task embeddings."
    assert not checked["findings"][-1]["passed"]


def probing() -> Intake:
    """An intake whose provider must be called."""
    intake, _ = requested()
    content = HostedDescription.read(described())
    Intake.objects.filter(pk=intake.pk).update(
        state=IntakeState.PROBING, hosted=content.model_dump(mode="json"), job_id=uuid4()
    )
    IntakeProbe.objects.create(intake=intake)
    return intake


def credential() -> Credential:
    return Credential.objects.create(
        department=company.department("clinical"),
        name="example-key",
        kind="header",
        hosts=["api.example.com"],
        sealed=b"sealed",
        sealed_to="0" * 16,
        created_by=Person.objects.earliest("pk"),
    )


def test_an_egress_worker_gets_the_order_and_reports_and_a_node_may_not() -> None:
    intake = probing()
    content = HostedDescription.read(described())
    credential()
    control = DirectControl()
    (order,) = control.probes(worker="egress@a")
    sealed = control.credential(
        worker="egress@a",
        deployment_id=0,
        name="example-key",
        host="api.example.com",
        intake_id=intake.pk,
    )
    assert (sealed.department, sealed.sealed) == ("clinical", b"sealed")
    with pytest.raises(NotFound, match="does not call the provider"):
        control.credential(
            worker="egress@b",
            deployment_id=0,
            name="example-key",
            host="api.example.com",
            intake_id=intake.pk,
        )
    assert order.intake_id == intake.pk
    assert order.description == content
    control.probe_report(worker="egress@a", intake_id=intake.pk, result=answered())
    assert control.probes(worker="egress@a") == []
    node = RemoteControl(cast(Any, None), cast(Any, None))
    with pytest.raises(NotPermitted, match="A node calls no provider"):
        node.probes(worker="node/a")
    with pytest.raises(NotPermitted, match="A node calls no provider"):
        node.probe_report(worker="node/a", intake_id=intake.pk, result=answered())


def test_the_plan_loads_the_description_and_a_prompt_on_it() -> None:
    company.developer()
    hosted = gpt()
    plan = load_plan(deployed(hosted))
    assert (plan.engine_name, plan.dtype, plan.adapter, plan.prompt) == (
        "hosted",
        None,
        None,
        None,
    )
    assert plan.engine == "workers.engines.hosted.engine:HostedEngine"
    assert [file.path for file in plan.weights.manifest.files] == [HOSTED_FILE]
    assert plan.digest == plan.weights.digest == hosted.digest
    assert hosted in prompt_bases(company.developer(), GENERATE)
    prompt = prompt_on(hosted)
    plan = load_plan(deployed(prompt, "brief"))
    assert plan.prompt is not None
    assert (plan.weights.digest, plan.top.digest) == (hosted.digest, prompt.digest)


def test_a_copy_needs_next_to_no_memory() -> None:
    layers = [Layer("hosted", "a" * 64, 2_000)]
    need = need_of(layers, task=GENERATE, engine="hosted", precision="stored")
    assert need.total == OWN_FIXED
    company.developer()
    hosted = gpt()
    assert need_of_deployment(deployed(hosted)).total == OWN_FIXED
    assert need_of_deployment(deployed(prompt_on(hosted), "brief")).total == OWN_FIXED


def test_it_is_not_fine_tuned_with_a_clear_reason() -> None:
    developer = company.developer()
    hosted = gpt()
    rows = company.data("chats", GENERATE)
    with pytest.raises(InvalidInput, match="who keeps its weights; it cannot be fine-tuned"):
        fine_tune_request(
            actor=developer,
            model=company.model("letters", GENERATE),
            base_version=hosted,
            method="lora",
            dataset_version=rows,
            hyperparameters={},
        )


def evaluation(version: ModelVersion, level: str = "public", **changes: Any) -> Job:
    task = version.model.task
    rows = company.data(f"chats-{task}-{level}", task, classification=level)
    DatasetVersion.objects.filter(pk=rows.pk).update(**changes)
    rows.refresh_from_db()
    return evaluate_request(actor=company.developer(), version=version, dataset_version=rows)


def test_an_evaluation_states_its_provider_and_reserves_the_most_that_it_may_cost() -> None:
    company.developer()
    job = evaluation(gpt(), rows=100, size_bytes=20_000)
    assert job.spec["provider"] == {
        "name": "Example AI",
        "host": "api.example.com",
        "model": "gpt-4o-2024-08-06",
    }
    # Half of the bytes and 32 tokens a row; 64 tokens an answer.
    assert job.spec["tokens"] == {
        "prompt": 13_200,
        "completion": 6_400,
        "prompt_price": 2_500_000,
        "completion_price": 10_000_000,
    }
    hold = BudgetHold.objects.get(reference=reference_of(job))
    assert (hold.reserved_micro, hold.devices) == (33_000 + 64_000, 0)


def test_an_evaluation_of_a_prompt_counts_the_answers_without_it() -> None:
    company.developer()
    job = evaluation(prompt_on(gpt()), rows=10, size_bytes=2_000)
    assert job.spec["tokens"]["completion"] == 2 * 10 * 64


def test_an_answer_without_a_permitted_limit_may_be_the_longest() -> None:
    company.developer()
    job = evaluation(gpt(parameters=["temperature"]), rows=2)
    assert job.spec["tokens"]["completion"] == 2 * 16_384


def test_data_above_the_clearance_is_not_sent() -> None:
    company.developer()
    version = gpt(cleared_for="internal")
    assert evaluation(version, "internal").state == JobState.QUEUED
    with pytest.raises(InvalidInput, match=r"is confidential; Example AI .* internal") as refused:
        evaluation(version, "confidential")
    assert "dataset" in refused.value.fields
    with pytest.raises(InvalidInput, match="is cleared for internal data"):
        evaluation(prompt_on(version), "restricted")


def test_too_many_tokens_a_task_without_measurable_metrics_and_an_ended_model_are_refused() -> None:
    company.developer()
    version = gpt()
    with pytest.raises(InvalidInput, match="one evaluation uses at most"):
        evaluation(version, rows=10**7)
    other = hosted_version(
        company.model("completer", "text-completion"), Person.objects.earliest("pk")
    )
    with pytest.raises(InvalidInput, match="providers do not state"):
        evaluation(other)
    scribe = hosted_version(
        company.model("scribe", "automatic-speech-recognition"),
        Person.objects.earliest("pk"),
        **described_as(Operation.TRANSCRIPTION),
    )
    with pytest.raises(InvalidInput, match="only answers to messages"):
        evaluation(scribe)
    ended = hosted_version(
        company.model("ended", GENERATE), Person.objects.earliest("pk"), shutdown_on="2020-01-01"
    )
    with pytest.raises(WrongState, match="ended gpt-4o"):
        evaluation(ended, "internal")


def test_egress_workers_claim_evaluations_of_hosted_versions_alone() -> None:
    company.developer()
    hosted = evaluation(gpt())
    own = Job.objects.create(
        kind="evaluate",
        department=company.department("clinical"),
        created_by=Person.objects.earliest("pk"),
        title="Evaluate bert v1",
        spec={},
    )
    claimed = EgressJobs().claim_first("egress@a")
    assert claimed is not None
    assert claimed[0].job_id == hosted.pk
    assert EgressJobs().claim_first("egress@a") is None
    first = job_claim(job_id=own.pk, worker="compute@a")
    assert first is not None
    assert first.job_id == own.pk


def test_no_compute_worker_is_woken_or_makes_way_for_it() -> None:
    company.developer()
    job = evaluation(gpt())
    assert job_claim(job_id=job.pk, worker="compute@a") is None
    assert "egress worker" in job_waits(job)
    Job.objects.filter(pk=job.pk).update(dispatch_after=timezone.now() - timedelta(hours=1))
    job_sweep()
    job.refresh_from_db()
    assert job.dispatches == 1


def test_data_that_are_classified_higher_meanwhile_are_not_sent() -> None:
    company.developer()
    job = evaluation(gpt())
    Dataset.objects.update(classification="confidential")
    assert EgressJobs().claim_first("egress@a") is None
    job.refresh_from_db()
    assert (job.state, "cleared for public data" in job.error) == (JobState.FAILED, True)


def test_only_the_worker_that_evaluates_gets_the_credential_of_the_department() -> None:
    company.developer()
    job = evaluation(gpt())
    assert EgressJobs().claim_first("egress@a") is not None
    assert evaluation_department(worker="egress@a", job_id=str(job.pk)).slug == "clinical"
    for worker in ("egress@b", "compute@a"):
        with pytest.raises(NotFound):
            DirectControl().credential(
                worker=worker,
                deployment_id=0,
                name="example-key",
                host="api.example.com",
                job_id=str(job.pk),
            )
    with pytest.raises(Unavailable, match="has no credential example-key"):
        DirectControl().credential(
            worker="egress@a",
            deployment_id=0,
            name="example-key",
            host="api.example.com",
            job_id=str(job.pk),
        )


def test_a_run_reports_tokens_until_they_cost_more_than_was_reserved() -> None:
    company.developer()
    job = evaluation(gpt(), rows=1, size_bytes=100)
    claimed = EgressJobs().claim_first("egress@a")
    assert claimed is not None
    with acting_as("worker"):
        provider_used(claimed[0], prompt_tokens=10, completion_tokens=5)
        with pytest.raises(QuotaExceeded, match="more than was reserved"):
            provider_used(claimed[0], prompt_tokens=0, completion_tokens=1_000)
    hold = BudgetHold.objects.get(reference=reference_of(job))
    assert (hold.prompt_tokens, hold.completion_tokens) == (10, 1_005)


def test_the_prices_of_the_description_apply_unless_the_deployment_has_its_own() -> None:
    company.developer()
    hosted = gpt()
    stated = Tariff(2_500_000, 10_000_000)
    assert provider_tariff(hosted) == stated
    assert provider_tariff(prompt_on(hosted)) == stated
    assert provider_tariff(gpt("finance", prices={})) is None
    voice = hosted_version(
        company.model("voice", "text-to-speech"),
        Person.objects.earliest("pk"),
        **described_as(Operation.SPEECH),
    )
    by_character = provider_tariff(voice)
    assert by_character == Tariff(units={"characters": 100})
    assert by_character.cost(unit="characters", units=9) == 900
    own, general = Tariff(1, 1), Tariff(5, 5)
    prices = {"assistant": own, "": general}
    assert tariff_for("assistant", prices, stated) == own
    assert tariff_for("other", prices, stated) == stated
    assert tariff_for("other", prices) == general
    assert tariff_for("other", {}, None) == FREE
    assert stated.cost(prompt_tokens=1_000, completion_tokens=100) == 3_500
