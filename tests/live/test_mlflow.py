"""A version as MLflow and its ordinary client see it. Starts a real MLflow server (10 to 20 s)."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname
from uuid import uuid4

import httpx
import pytest

from assay.local.services import MLflow
from governance.people.models import Department, Person, RoleAssignment
from governance.policy.services import policy_bootstrap
from governance.principals import service_principal
from registry.catalog.hosted import HOSTED_FILE
from registry.intake.models import IntakeState
from registry.intake.probes import intake_probe_report, intake_probes_due, intakes_probe
from registry.intake.services import intake_checked, intake_sign_off, intake_submit
from registry.storage import store
from registry.versions.hosted import hosted_of
from registry.versions.models import ModelVersion
from registry.versions.services import version_register
from tests.proofs import proven
from tests.stored import version_manifest
from tests.unit.registry.hosted_world import answered, description
from tests.unit.registry.objects import (
    Upload,
    data,
    delivery,
    lora_files,
    model,
    stored,
    version,
)

pytestmark = [pytest.mark.live, pytest.mark.django_db]


@pytest.fixture
def client(mlflow_server: MLflow, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An ordinary MLflow client of the same server."""
    from mlflow.tracking import MlflowClient

    settings.MLFLOW_TRACKING_URI = mlflow_server.url
    for name, value in mlflow_server.environment.items():
        monkeypatch.setenv(name, value)
    return MlflowClient(tracking_uri=mlflow_server.url)


def test_another_user_of_the_machine_is_not_answered(mlflow_server: MLflow) -> None:
    """Loopback is open to everybody; without the client's certificate MLflow says nothing."""
    own = mlflow_server.environment
    for file in own.values():
        if file.startswith("/"):
            assert Path(file).stat().st_mode & 0o077 == 0
            assert Path(file).parent.stat().st_mode & 0o077 == 0
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    knowing = ssl.create_default_context(cafile=own["MLFLOW_TRACKING_SERVER_CERT_PATH"])
    for context in (anybody, knowing):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{mlflow_server.url}/health", verify=context)
    with pytest.raises(httpx.TransportError):
        httpx.get(mlflow_server.url.replace("https", "http") + "/health")
    knowing.load_cert_chain(own["MLFLOW_TRACKING_CLIENT_CERT_PATH"])
    assert httpx.get(f"{mlflow_server.url}/health", verify=knowing).status_code == 200


@pytest.fixture
def clinical(db: None) -> Department:
    policy_bootstrap()
    return Department.objects.create(slug="clinical", name="Clinical")


def member(name: str, role: str, department: Department | None = None) -> Person:
    person = Person.objects.create(name=name, email=f"{name.lower()}@example.org")
    RoleAssignment.objects.create(person=person, role=role, department=department)
    return person


def register(developer: Person, clinical: Department, job: Any, base: ModelVersion) -> ModelVersion:
    name = f"sentiment-{job.hex[:8]}"
    made = model(developer, clinical, name)
    rows = data(developer, clinical, f"rows-{job.hex[:8]}", [{"text": "a", "label": "b"}])
    return version_register(
        actor=service_principal("controller"),
        model=made,
        kind="full",
        manifest=stored({"config.json": b"{}", "pooling/model.safetensors": job.bytes}),
        base=base,
        dataset_version=rows,
        parameters={"learning_rate": 5e-5, "labels": ["a", "b"], "note": "x" * 10_000},
        metrics={"macro_f1": 0.5},
        history=[{"step": step, "values": {"loss": 1 / (step + 1)}} for step in range(1500)],
        license="Apache-2.0",
        card="# A card",
        job_id=job,
        created_by=developer,
    )


def manifest_at(address: str) -> dict[str, Any]:
    """The manifest that a tag of MLflow names."""
    return dict(json.loads(Path(url2pathname(urlsplit(address).path)).read_bytes()))


def test_an_ordinary_client_sees_a_registered_version_and_where_its_bytes_are(
    client: Any, clinical: Department, tmp_path: Path
) -> None:

    developer = member("Devi", "developer", clinical)
    base = version(model(developer, clinical, f"base-{uuid4().hex[:8]}"), developer)
    made = register(developer, clinical, uuid4(), base)
    run = client.get_run(made.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "5e-05"
    assert run.data.metrics["final.macro_f1"] == 0.5
    losses = client.get_metric_history(made.mlflow_run_id, "loss")
    assert sorted(point.step for point in losses) == list(range(1500))
    registered = client.get_model_version(made.model.name, made.mlflow_version)
    assert registered.tags["assay.digest"] == made.digest
    assert registered.tags["assay.department"] == "clinical"
    assert registered.tags["assay.kind"] == "full"
    assert base.digest in registered.tags["assay.base"]
    assert registered.source.endswith("/artifacts/model")
    address = registered.tags["assay.manifest"]
    assert address.endswith(f"/files/{made.digest[:2]}/{made.digest}")
    assert [file["path"] for file in manifest_at(address)["files"]] == [
        "config.json",
        "pooling/model.safetensors",
    ]


def test_a_job_that_is_reported_again_after_a_crash_is_registered_once(
    client: Any, clinical: Department
) -> None:
    developer = member("Devi", "developer", clinical)
    base = version(model(developer, clinical, f"base-{uuid4().hex[:8]}"), developer)
    job = uuid4()
    made = register(developer, clinical, job, base)
    # As if the control plane had died between MLflow's answer and its own commit.
    name, run_id, number = made.model.name, made.mlflow_run_id, made.mlflow_version
    arguments: dict[str, Any] = {
        "actor": service_principal("controller"),
        "model": made.model,
        "kind": "full",
        "manifest": version_manifest(made.digest),
        "base": base,
        "dataset_version": made.dataset_version,
        "parameters": {"learning_rate": 5e-5},
        "metrics": {"macro_f1": 0.5},
        "history": [],
        "license": "Apache-2.0",
        "card": "# A card",
        "job_id": job,
        "created_by": developer,
    }
    made.delete()
    again = version_register(**arguments)
    assert version_register(**arguments) == again
    assert (again.mlflow_run_id, again.mlflow_version) == (run_id, number)
    assert len(client.search_model_versions(f"name = '{name}'")) == 1


def test_a_signed_intake_becomes_a_trusted_base_version(client: Any, clinical: Department) -> None:
    developer, operator = member("Devi", "developer", clinical), member("Otto", "operator")
    of = model(developer, clinical, f"minilm-{uuid4().hex[:8]}", "embeddings")
    intake = intake_submit(
        actor=proven(developer),
        model=of,
        source="a supplier",
        license="Apache-2.0",
        files=delivery(),
    )
    manifest = stored({"config.json": b"{}", "model.safetensors": uuid4().bytes})
    code = {
        "kind": "chat template",
        "path": "chat_template.jinja",
        "sha256": "ab" * 32,
        "characters": 5,
        "shown": "{{ 1 }}",
    }
    intake_checked(intake_id=intake.pk, manifest=manifest, findings=[], code=[code], job_id=uuid4())
    signed = intake_sign_off(actor=proven(operator), intake_id=intake.pk, accept=True)
    assert signed.state == IntakeState.TRUSTED
    assert signed.version is not None
    assert (signed.version.kind, signed.version.number) == ("base", 1)
    assert signed.version.created_by == developer
    assert signed.version.code == [{**code, "known": ""}]
    store.verify_version(manifest)
    registered = client.get_model_version(of.name, signed.version.mlflow_version)
    assert registered.run_id == signed.version.mlflow_run_id
    assert registered.tags["assay.digest"] == manifest.digest


def test_a_signed_description_becomes_a_hosted_version(client: Any, clinical: Department) -> None:
    developer, operator = member("Devi", "developer", clinical), member("Otto", "operator")
    of = model(developer, clinical, f"gpt-{uuid4().hex[:8]}", "text-generation")
    content = description(region=uuid4().hex)
    intake = intake_submit(
        actor=proven(developer),
        model=of,
        source="Example AI",
        license="Terms",
        files=[Upload(HOSTED_FILE, content.canonical())],
    )
    manifest = stored({HOSTED_FILE: content.canonical()})
    stated = content.model_dump(mode="json")
    intake_checked(
        intake_id=intake.pk, manifest=manifest, findings=[], job_id=uuid4(), hosted=stated
    )
    intake_probes_due(worker="egress@a")
    intake_probe_report(worker="egress@a", intake_id=intake.pk, result=answered())
    intakes_probe()
    made = intake_sign_off(actor=proven(operator), intake_id=intake.pk, accept=True).version
    assert made is not None
    assert (made.kind, made.base, made.parameters, made.digest) == (
        "hosted",
        None,
        stated,
        manifest.digest,
    )
    assert hosted_of(made) == content
    registered = client.get_model_version(of.name, made.mlflow_version)
    assert registered.tags["assay.kind"] == "hosted"


def test_a_signed_adapter_becomes_a_version_on_its_base(client: Any, clinical: Department) -> None:
    developer, operator = member("Devi", "developer", clinical), member("Otto", "operator")
    name, task = uuid4().hex[:8], "text-generation"
    base = version(model(developer, clinical, f"smol-{name}", task), developer)
    of = model(developer, clinical, f"letters-{name}", task)
    intake = intake_submit(
        actor=proven(developer),
        model=of,
        source="a partner",
        license="MIT",
        files=[Upload(name, content) for name, content in lora_files().items()],
        base=base,
    )
    assert intake.state == IntakeState.QUARANTINED, intake.reason
    manifest = stored(lora_files(), base.digest)
    intake_checked(intake_id=intake.pk, manifest=manifest, findings=[], job_id=uuid4())
    made = intake_sign_off(actor=proven(operator), intake_id=intake.pk, accept=True).version
    assert made is not None
    assert (made.model, made.number, made.kind, made.base) == (of, 1, "adapter", base)
    registered = client.get_model_version(of.name, made.mlflow_version)
    assert registered.tags["assay.kind"] == "adapter"
    assert base.digest in registered.tags["assay.base"]
    listed = manifest_at(registered.tags["assay.manifest"])
    assert listed["base"] == base.digest
    assert [file["path"] for file in listed["files"]] == sorted(lora_files())
    store.verify_version(manifest)
