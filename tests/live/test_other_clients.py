"""Clients of other people against a real gateway and engine: ranks, chats, streams, vectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from redis import Redis

from tests.live.celery_worker import ENGINE_WORKER, controller, worker
from tests.live.clients import asked
from tests.live.test_media import files
from tests.live.test_serving_faults import key
from tests.live.web_process import web
from tests.unit.tasks.tiny_encoders import save_encoder
from tests.unit.workers import company
from tests.unit.workers.conftest import minilm, smollm2, tiny
from tests.unit.workers.releases import release
from tests.waiting import wait_until
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.services import deployment_create

__all__ = ["minilm", "smollm2", "tiny"]

pytestmark = [pytest.mark.live, pytest.mark.torch, pytest.mark.django_db(transaction=True)]
LEASE = {"ASSAY_SERVING_LEASE_S": "3600"}


@pytest.fixture
def gateway(
    redis: Redis, tmp_path: Path, settings: Any, tiny: Path, minilm: Path
) -> Iterator[tuple[str, str]]:
    """The address of a gateway, and a key for `writer`, `encoder` and `ranker`."""
    settings.SERVING_LEASE_S = 3600
    ranker = {"num_labels": 1}
    for name, task, folder in (
        ("writer", "text-generation", tiny),
        ("encoder", "embeddings", save_encoder(minilm, "BertModel", tmp_path / "encoder")),
        (
            "ranker",
            "rerank",
            save_encoder(minilm, "BertForSequenceClassification", tmp_path / "ranker", **ranker),
        ),
    ):
        version = company.version(company.model(name, task), files=files(folder))
        approved = release(version, name=name)
        deployment_create(actor=company.developer(), release_id=approved.pk)
    with ExitStack() as stack:
        stack.enter_context(controller(tmp_path / "controller.log", **LEASE))
        stack.enter_context(worker(tmp_path / "engine.log", *ENGINE_WORKER, **LEASE))
        url, _ = stack.enter_context(web(tmp_path, **LEASE))
        for number in (1, 2, 3):
            serving = Deployment.objects.filter(state=DeploymentState.SERVING)
            wait_until(lambda number=number, serving=serving: serving.count() >= number)
        yield url, key()


def test_clients_of_other_people_are_answered(
    gateway: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, token = gateway
    found = asked("cohere", url, token)
    assert found["older"] == found["newer"]
    assert len(found["newer"]) == 2
    assert found["newer"][0][1] >= found["newer"][1][1]
    assert found["text"]
    assert found["tokens"] > 0
    assert found["refused"] == 401

    chain = asked("langchain", url, token)
    assert chain["whole"]
    assert (chain["reason"], chain["tokens"]) == ("length", 6)
    assert "".join(chain["chunks"]) == chain["whole"]
    assert sum(chain["streamed_tokens"]) == 6
    assert chain["dimensions"] == [32, 32]

    index = asked("llamaindex", url, token)
    assert index["whole"] == chain["whole"]
    assert index["tokens"] == 6
    assert "".join(index["chunks"]) == index["whole"]

    # Other tests of this process may have imported it offline.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub = InferenceClient(base_url=f"{url}/v1", api_key=token)
    question = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Say hello."},
    ]
    settings = {"model": "writer", "temperature": 0, "max_tokens": 6}
    answer = hub.chat_completion(question, **settings)
    assert answer.choices[0].message.content == chain["whole"]
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 6)
    pieces = list(hub.chat_completion(question, stream=True, **settings))
    assert "".join(each.choices[0].delta.content or "" for each in pieces) == chain["whole"]
