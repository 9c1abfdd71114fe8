"""Jobs on images from an archive to a measured version: trained, delivered and evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry import store
from registry.datasets.models import DatasetVersion
from registry.datasets.services import dataset_create, dataset_version_add
from registry.manifests import Manifest
from registry.versions.models import ModelVersion
from tests.stored import stored_file
from tests.unit.registry.media_files import archive
from tests.unit.registry.objects import Upload
from tests.unit.workers import company
from workers.jobs import workspace
from workers.jobs.models import Job, JobState
from workers.jobs.requests import evaluate_request, fine_tune_request
from workers.tasks.jobs import run

pytestmark = [pytest.mark.torch, pytest.mark.django_db(transaction=True)]
TASK = "image-classification"


def digits(folder: Path, name: str, start: int, stop: int) -> DatasetVersion:
    """A dataset of handwritten digits, uploaded as an ImageFolder archive."""
    from tests.unit.tasks.tiny_images import save_digits

    rows = save_digits(folder, stop)[start:]
    return dataset_version_add(
        actor=company.developer(),
        dataset=dataset_create(
            actor=company.developer(),
            name=name,
            department=company.department("clinical"),
            task=TASK,
            classification="internal",
            license="CC0-1.0",
        ),
        file=Upload(
            "data.zip",
            archive(
                {f"{row['label']}/{row['image']}.png": (folder / row["image"]).read_bytes()
                 for row in rows}
            ),
        ),
    )  # fmt: skip


def trained(tmp_path: Path) -> tuple[Job, DatasetVersion]:
    from tests.unit.tasks.tiny_images import save_tiny

    base = save_tiny("ResNetForImageClassification", tmp_path / "base")
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    data = digits(tmp_path / "media", "digits", 0, 120)
    job = fine_tune_request(
        actor=company.developer(),
        model=company.model("digits", TASK),
        base_version=company.version(company.model("tiny-resnet", TASK), files=files),
        method="full",
        dataset_version=data,
        hyperparameters={"epochs": 1},
    )
    return job, data


def test_a_classifier_of_images_is_trained_delivered_and_measured(tmp_path: Path) -> None:
    job, data = trained(tmp_path)
    run(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FINISHING, job.error
    assert not workspace.inputs_folder(job.pk, 1).exists()
    manifest = Manifest.from_json(job.result["manifest"])
    store.adopt(workspace.output_folder(job.pk, 1), manifest)
    version = ModelVersion.objects.create(
        model=company.model("digits", TASK),
        number=1,
        kind="full",
        base_id=job.spec["base"],
        dataset_version=data,
        digest=manifest.digest,
        manifest=manifest.to_json(),
        size_bytes=manifest.size_bytes,
        created_by=job.created_by,
    )
    measured = evaluate_request(
        actor=company.developer(),
        version=version,
        dataset_version=digits(tmp_path / "media", "held-out", 120, 180),
    )
    run(str(measured.pk))
    measured.refresh_from_db()
    assert measured.state == JobState.FINISHING, measured.error
    assert measured.result["sample_size"] == 60
    assert measured.result["baseline_name"] == "Pixels + logistic regression"


def test_a_changed_file_ends_the_job(tmp_path: Path) -> None:
    job, _ = trained(tmp_path)
    image = next(iter((tmp_path / "media").iterdir())).name
    stored = stored_file(image)
    stored.chmod(0o644)
    stored.write_bytes(b"other bytes")
    run(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "has other bytes in the store" in job.error
