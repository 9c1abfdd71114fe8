"""The example of `docs/how-to/adapt-a-model.md`, run as it stands, on real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from assay.local.services import MLflow
from governance.keys.services import access_token_create
from governance.people.models import Person
from registry.evaluations.models import Evaluation
from registry.versions.models import ModelVersion
from tests.live.celery_worker import ROOT, controller, worker
from tests.live.test_media import files
from tests.live.web_process import web
from tests.proofs import fresh_proof
from tests.unit.tasks.tiny_encoders import save_encoder
from tests.unit.workers import company
from tests.unit.workers.conftest import minilm

__all__ = ["minilm"]

pytestmark = [
    pytest.mark.live,
    pytest.mark.long,
    pytest.mark.torch,
    pytest.mark.django_db(transaction=True),
]
COMPUTE = ("-I", "workers.celery_tasks.jobs", "-Q", "compute", "-P", "threads", "-c", "1")
PAGE = ROOT / "docs" / "how-to" / "adapt-a-model.md"


def test_the_example_of_the_guide_runs(
    redis: Redis, tmp_path: Path, minilm: Path, mlflow_server: MLflow
) -> None:
    encoder = save_encoder(minilm, "BertModel", tmp_path / "encoder")
    company.version(company.model("all-minilm-l6-v2", "embeddings"), files=files(encoder))
    company.developer()
    developer = Person.objects.get(email="dev-clinical@example.org")
    _, token = access_token_create(person=developer, name="guide", proof=fresh_proof())
    example = PAGE.read_text().partition("\n## Run an example\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.+?)```", example, re.DOTALL)
    script = "".join(blocks).replace("DEPARTMENT=engineering", "DEPARTMENT=clinical")
    shared = mlflow_server.environment
    with (
        controller(tmp_path / "controller.log", **shared),
        web(tmp_path, **shared) as (url, _),
        worker(tmp_path / "compute.log", *COMPUTE, **shared),
    ):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False,
            env={
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(tmp_path), "ASSAY_SERVER": url, "ASSAY_TOKEN": token,
            },
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    version = ModelVersion.objects.get(model__name="desk-sorter")
    evaluation = Evaluation.objects.get(version=version)
    assert evaluation.sample_size == 40
    assert [result.gate.metric for result in evaluation.gate_results.all()] == ["accuracy"]
    assert "accuracy" in done.stdout
