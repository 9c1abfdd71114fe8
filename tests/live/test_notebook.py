"""The notebook of examples/, run as it stands on real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from assay.local.services import MLflow
from governance.keys.services import access_token_create
from governance.people.models import Person
from registry.evaluations.models import Evaluation
from tests.live.celery_worker import controller, worker
from tests.live.clients import asked
from tests.live.test_fine_tune_guide import COMPUTE
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


def test_the_notebook_fine_tunes_evaluates_and_shows_data_frames(
    redis: Redis, tmp_path: Path, minilm: Path, wheel: Path, mlflow_server: MLflow
) -> None:
    encoder = save_encoder(minilm, "BertModel", tmp_path / "encoder")
    company.version(company.model("all-minilm-l6-v2", "embeddings"), files=files(encoder))
    company.developer()
    developer = Person.objects.get(email="dev-clinical@example.org")
    _, token = access_token_create(person=developer, name="notebook", proof=fresh_proof())
    shared = mlflow_server.environment
    with (
        controller(tmp_path / "controller.log", **shared),
        web(tmp_path, **shared) as (url, _),
        worker(tmp_path / "compute.log", *COMPUTE, **shared),
    ):
        outputs = asked(
            "notebook", url, token, timeout_s=900,
            PYTHONPATH=str(wheel), HOME=str(tmp_path), ASSAY_DEPARTMENT="clinical",
        )  # fmt: skip
    text = "\n".join(outputs)
    assert "(40, 40)" in text
    assert Evaluation.objects.get().sample_size == 40
    for heading in ("loss", "baseline", "metrics.accuracy"):
        assert heading in text
    assert ", succeeded" in text
