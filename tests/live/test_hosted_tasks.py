"""Hosted models of tasks other than chat, through a real gateway and a real egress worker."""

from __future__ import annotations

import asyncio
import base64
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from governance.people.models import Person
from governance.usage.models import UsageRecord
from registry.catalog.hosted import Operation
from tests.live.test_hosted import CHAT, QUESTION, Hosted, llama_cpp
from tests.live.test_llama_cpp import content, events
from tests.unit.registry.hosted_world import described_as, hosted_version
from tests.unit.workers import company
from tests.unit.workers.provider import Provider, Received, replies
from tests.unit.workers.releases import release
from tests.waiting import wait_until
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.services import deployment_create
from workers.egress.probing import probe_audio

__all__ = ["llama_cpp"]
pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.django_db(transaction=True)]
MODEL = "gpt-4o-2024-08-06"
PNG = b"\x89PNG\r\n\x1a\nimage"
SAMPLES = b"\1\2" * 500
WAV = (
    b"RIFF\xff\xff\xff\xffWAVEfmt "
    + struct.pack("<IHHIIHH", 16, 1, 1, 24_000, 48_000, 2, 16)
    + b"data\xff\xff\xff\xff"
    + SAMPLES
)
RESPONSE = {
    "model": MODEL,
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Oslo."}]}],
    "usage": {"input_tokens": 9, "output_tokens": 3},
}
VECTOR = {"index": 0, "embedding": [0.6, 0.8]}
ANSWERS = {
    "/v1/embeddings": replies({"model": MODEL, "data": [VECTOR], "usage": {"prompt_tokens": 4}}),
    "/v1/audio/transcriptions": replies({"text": "Beep."}),
    "/v1/audio/speech": replies(WAV, "Content-Type: audio/wav"),
    "/v1/images/generations": replies({"data": [{"b64_json": base64.b64encode(PNG).decode()}] * 2}),
    "/v1/responses": replies(RESPONSE),
}
TASKS = {
    Operation.EMBEDDINGS: "embeddings",
    Operation.TRANSCRIPTION: "automatic-speech-recognition",
    Operation.SPEECH: "text-to-speech",
    Operation.IMAGES: "text-to-image",
    Operation.RESPONSES: "text-generation",
}


async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
    await ANSWERS[received.path](received, writer)


def deploy(origin: str, operation: Operation, **changes: Any) -> Deployment:
    """Deploy a released version for an operation under its name."""
    version = hosted_version(
        company.model(f"model-{operation}", TASKS[operation]),
        Person.objects.earliest("pk"),
        **{**described_as(operation), "base_url": f"{origin}/v1", "credential": "", **changes},
    )
    approved = release(version, name=operation.value, engine="hosted")
    return deployment_create(actor=company.developer(), release_id=approved.pk)


def test_llama_cpps_own_server_answers_by_responses(
    redis: Redis, llama_cpp: str, tmp_path: Path, settings: Any
) -> None:
    settings.SERVING_LEASE_S = 3600
    with ExitStack() as stack:
        limits = {"context_tokens": 2_048, "max_tokens": 512}
        hosted = Hosted(
            llama_cpp,
            tmp_path,
            stack,
            operation="responses",
            model="smollm2",
            parameters=["max_tokens", "temperature"],
            **limits,
        )
        whole = hosted.ask(max_tokens=12, temperature=0)
        assert whole.status_code == 200, (whole.text, hosted.log.read_text())
        text = whole.json()["choices"][0]["message"]["content"]
        assert text
        request = {"model": "assistant", "messages": QUESTION, "max_tokens": 12, "temperature": 0}
        with hosted.client.stream("POST", CHAT, json={**request, "stream": True}) as answer:
            assert "".join(map(content, events(answer))) == text


def test_every_operation_is_served_and_metered_in_the_unit_of_its_task(
    redis: Redis, tmp_path: Path, settings: Any
) -> None:
    settings.SERVING_LEASE_S = 3600
    provider = Provider(behave)
    try:
        with ExitStack() as stack:
            hosted = Hosted(provider.origin, tmp_path, stack)
            short = {Operation.EMBEDDINGS: {"dimensions": 2}}
            deployed = [deploy(provider.origin, each, **short.get(each, {})).pk for each in TASKS]
            serving = Deployment.objects.filter(pk__in=deployed, state=DeploymentState.SERVING)
            wait_until(lambda: serving.count() == len(deployed))
            post = hosted.client.post
            answer = post(
                "/v1/embeddings",
                json={"model": "embeddings", "input": "a", "encoding_format": "base64"},
            )
            assert answer.status_code == 200, (answer.text, hosted.log.read_text())
            packed = base64.b64decode(answer.json()["data"][0]["embedding"])
            assert struct.unpack("<2f", packed) == pytest.approx((0.6, 0.8))
            spoken = {"model": "speech", "input": "Good day.", "voice": "default"}
            answer = post("/v1/audio/speech", json={**spoken, "response_format": "pcm"})
            assert answer.content == SAMPLES, answer.text
            file = {"file": ("a.wav", probe_audio())}
            answer = post("/v1/audio/transcriptions", data={"model": "transcription"}, files=file)
            assert answer.json()["text"] == "Beep.", answer.text
            drawn = {"model": "images", "prompt": "A house", "n": 2, "size": "64x64", "seed": 3}
            answer = post("/v1/images/generations", json=drawn)
            images = answer.json()["data"]
            assert [each["seed"] for each in images] == [3, 4], answer.text
            assert base64.b64decode(images[0]["b64_json"]) == PNG
            answer = post(CHAT, json={"model": "responses", "messages": QUESTION})
            assert answer.json()["choices"][0]["message"]["content"] == "Oslo.", answer.text
            records = UsageRecord.objects.filter(deployment__in=list(TASKS))
            wait_until(lambda: records.count() == len(TASKS))
            costs = {each.deployment: (each.unit, each.units, each.cost_micro) for each in records}
            # A million prompt tokens cost 20,000, and any other unit 100.
            assert costs == {
                "embeddings": ("tokens", 4, 1),
                "speech": ("characters", 9, 900),
                "transcription": ("audio_seconds", 1, 100),
                "images": ("images", 2, 200),
                "responses": ("tokens", 12, 1),
            }
    finally:
        provider.close()
