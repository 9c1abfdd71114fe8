"""A version leaves one installation in a bundle, and enters another through intake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from governance.audit.models import AuditEvent
from governance.audit.sealer import seal_once
from governance.keys.services import access_token_create
from governance.people.models import Department, Person
from registry.intake.models import Intake, IntakeState
from registry.manifests import Manifest
from registry.storage import store
from registry.storage.backend import file_key
from registry.versions.models import ModelVersion
from tests.proofs import fresh_proof
from tests.unit.assay.test_cli import Run, ada, run, signed_in
from tests.unit.registry.objects import lora_files, model, safetensors, version
from tests.unit.registry.office import Office
from tools import bundle
from workers.celery_tasks.jobs import run as run_job
from workers.jobs.finishing import job_finish

__all__ = ["ada", "run", "signed_in"]

pytestmark = [pytest.mark.torch, pytest.mark.django_db(transaction=True), pytest.mark.sweep]


def sign_in(who: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = access_token_create(person=who, name="cli", proof=fresh_proof())
    monkeypatch.setenv("ASSAY_TOKEN", token)


@pytest.fixture
def adapter(
    person: Callable[..., Person],
    department: Callable[[str], Department],
    signed_in: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> ModelVersion:
    """An adapter on a base, whose lead is signed in; `arriving` and `arriving-adapter` are lines
    without versions."""
    devi, clinical = person("Devi", "lead@clinical"), department("clinical")
    sign_in(devi, monkeypatch)
    task = "text-generation"
    base = version(
        model(devi, clinical, "tiny", task),
        devi,
        files={
            "config.json": b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}',
            "model.safetensors": safetensors(),
        },
    )
    for name in ("arriving", "arriving-adapter"):
        model(devi, clinical, name, task)
    return version(
        model(devi, clinical, "tiny-adapter", task),
        devi,
        "adapter",
        base,
        files=lora_files(),
    )


@pytest.fixture
def bundled(adapter: ModelVersion, signed_in: Run, tmp_path: Path) -> Path:
    """A bundle of the adapter and its base, which is verified as the receiver does it."""
    signed_in("versions", "export", str(tmp_path / "exported"), str(adapter.pk), code=0)
    made = bundle.main(["make", str(tmp_path / "bundle"), "--versions", str(tmp_path / "exported")])
    assert made == 0
    return tmp_path / "bundle"


def verified(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(folder / "bundle.py"), "verify", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def checked(*, fault: str = "") -> Intake:
    """The newest delivery after its job, which ran here and now."""
    intake = Intake.objects.latest("pk")
    assert intake.job_id is not None, intake.reason
    run_job(str(intake.job_id))
    job_finish(intake.job_id)
    intake.refresh_from_db()
    assert fault in intake.reason
    return intake


def test_versions_arrive_through_intake_with_the_digests_that_they_left_with(
    bundled: Path, adapter: ModelVersion, signed_in: Run
) -> None:
    base = adapter.base
    assert base is not None
    ran = verified(bundled)
    assert ran.returncode == 0, ran.stderr
    assert f"tiny-adapter-v1: {adapter.digest} (adapter for text-generation on" in ran.stdout
    index = json.loads((bundled / "index.json").read_text())
    assert [each["digest"] for each in index["models"]] == [base.digest, adapter.digest]
    assert (bundled / "cards" / "tiny-v1.md").read_text() == "# A card"
    taken = AuditEvent.objects.filter(action="version:export", outcome="allowed")
    assert {event.subject_id for event in taken} == {str(base.pk), str(adapter.pk)}
    assert taken.count() == 4

    signed_in("upload", "version", str(bundled), "tiny-v1", "--model", "arriving", code=0)
    arrived = checked()
    assert (arrived.state, arrived.digest) == (IntakeState.AWAITING_SIGN_OFF, base.digest)
    signed_in(
        *("upload", "version", str(bundled), "tiny-adapter-v1", "--model", "arriving-adapter"),
        *("--base", str(base.pk)),
        code=0,
    )
    arrived = checked()
    assert (arrived.state, arrived.digest) == (IntakeState.AWAITING_SIGN_OFF, adapter.digest)


def test_a_bundle_that_was_changed_is_refused_before_and_at_intake(
    bundled: Path, adapter: ModelVersion, signed_in: Run
) -> None:
    file = bundled / "models" / "tiny-adapter-v1" / "adapter_model.safetensors"
    file.write_bytes(lora_files(b"\2")["adapter_model.safetensors"])
    assert "adapter_model.safetensors differs from the index" in verified(bundled).stderr
    command = ("upload", "version", str(bundled), "tiny-adapter-v1", "--model", "arriving-adapter")
    signed_in(*command, "--base", str(adapter.base_id), code=0)
    assert checked(fault=f"{adapter.digest} was expected").state == IntakeState.REJECTED
    # Without its base, an adapter is no delivery at all.
    signed_in(*command, code=0)
    assert "an adapter is not a base" in Intake.objects.latest("pk").reason


def test_a_bundle_holds_only_the_last_export_and_each_version_of_the_same_files(
    adapter: ModelVersion, bundled: Path, signed_in: Run, tmp_path: Path
) -> None:
    twin = ModelVersion.objects.get(pk=adapter.base_id)
    twin.pk, twin.number, twin.job_id = None, 2, None
    twin.save()
    exported = str(tmp_path / "exported")
    signed_in("versions", "export", exported, str(adapter.base_id), str(twin.pk), code=0)
    assert bundle.main(["make", str(tmp_path / "second"), "--versions", exported]) == 0
    names = {path.name for path in (tmp_path / "second" / "models").iterdir()}
    assert names == {"tiny-v1", "tiny-v2"}
    index = json.loads((bundled / "index.json").read_text())
    del index["models"][0]["task"]
    (bundled / "index.json").write_text(json.dumps(index))
    assert "index.json is not a valid index: KeyError('task')." in verified(bundled).stderr


def test_an_export_stops_at_a_damaged_file_and_continues_once_it_is_restored(
    adapter: ModelVersion, signed_in: Run, tmp_path: Path
) -> None:
    weights = Manifest.from_json(adapter.manifest).files[1]
    path = store.backend().path(file_key(weights.sha256))
    assert path is not None
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(b"\3" * len(good))
    command = ("versions", "export", str(tmp_path / "out"), str(adapter.pk))
    _, _, err = signed_in(*command, code=1)
    assert "adapter_model.safetensors of tiny-adapter v1 is damaged" in err
    path.write_bytes(good)
    before = AuditEvent.objects.filter(action="version:export").count()
    signed_in(*command, code=0)
    assert AuditEvent.objects.filter(action="version:export").count() == before + 1


def test_the_evidence_of_an_approved_release_comes_along(
    signed_in: Run,
    person: Callable[..., Person],
    department: Callable[[str], Department],
    tmp_path: Path,
) -> None:
    office = Office(person, department)
    release = office.approve(office.submit())
    seal_once()
    signed_in("versions", "export", str(tmp_path / "out"), str(release.version_id), code=0)
    pack = f"evidence/release-{release.pk}.zip"
    *_, exported = json.loads((tmp_path / "out" / "versions.json").read_text())
    assert exported["evidence"] == [pack]
    assert bundle.main(["make", str(tmp_path / "to"), "--versions", str(tmp_path / "out")]) == 0
    signed_in("releases", "check-evidence", str(tmp_path / "to" / pack), code=0)
    (tmp_path / "to" / pack).unlink()
    assert f"{pack} is missing" in verified(tmp_path / "to").stderr


def test_only_who_may_export_gets_the_bytes(
    adapter: ModelVersion,
    signed_in: Run,
    person: Callable[..., Person],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    command = ("versions", "export", str(tmp_path / "out"), str(adapter.pk))
    for who, said in (
        (person("Vic", "developer@clinical"), "may not export version tiny v1"),
        (person("Fin", "lead@finance"), "does not exist, or you may not see it"),
    ):
        sign_in(who, monkeypatch)
        _, _, err = signed_in(*command, code=4)
        assert said in err
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    refused = AuditEvent.objects.filter(action="version:export", outcome="denied")
    assert refused.count() == 1
