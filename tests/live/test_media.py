"""Images through a real gateway and a real engine worker: classified, drawn, refused, metered."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from django.conf import settings as django_settings
from PIL import Image
from redis import Redis

from governance.usage.models import UsageRecord
from tests.live.celery_worker import ENGINE_WORKER, controller, worker
from tests.live.test_serving_faults import key
from tests.live.web_process import web
from tests.unit.workers import company
from tests.unit.workers.releases import release
from tests.waiting import wait_until
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.services import deployment_create

pytestmark = [pytest.mark.live, pytest.mark.torch, pytest.mark.django_db(transaction=True)]

SORTER = "/v1/tasks/image-classification/sorter"


def files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def picture(size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "teal").save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def serve(redis: Redis, tmp_path: Path, settings: Any) -> Iterator[Callable[..., httpx.Client]]:
    """Serve a model of a task; returns a client with a key for it."""
    settings.SERVING_LEASE_S = 3600
    with ExitStack() as stack:

        def start(task: str, name: str, folder: Path, **logs: str) -> httpx.Client:
            version = company.version(company.model(name, task), files=files(folder))
            made = deployment_create(
                actor=company.developer(), release_id=release(version, name=name).pk
            )
            given = {"ASSAY_SERVING_LEASE_S": "3600", **logs}
            stack.enter_context(controller(tmp_path / "controller.log", **given))
            stack.enter_context(worker(tmp_path / "engine.log", *ENGINE_WORKER, **given))
            url, _ = stack.enter_context(web(tmp_path, **given))

            def serving() -> bool:
                return Deployment.objects.get(pk=made.pk).state == DeploymentState.SERVING

            wait_until(serving)
            headers = {"authorization": f"Bearer {key()}"}
            return stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=60))

        yield start


def logged(log: Path) -> dict[str, set[str]]:
    """Return the kinds of processes that wrote JSON lines with a request's ID, by that ID."""
    found: dict[str, set[str]] = {}
    for line in log.read_text().splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            found.setdefault(record["request_id"], set()).add(record["process"])
    return found


def stored() -> list[Path]:
    folder = Path(django_settings.DATA_DIR) / "media"
    return [file for file in folder.rglob("*") if file.is_file()]


def test_an_image_is_classified_metered_traced_and_forgotten_and_bad_ones_are_refused(
    serve: Callable[..., httpx.Client], tmp_path: Path
) -> None:
    from tests.unit.tasks.tiny_images import save_tiny

    client = serve(
        "image-classification",
        "sorter",
        save_tiny("ResNetForImageClassification", tmp_path / "m"),
        ASSAY_LOG_FORMAT="json",
        ASSAY_LOG_LEVEL="DEBUG",
    )
    raw = client.post(SORTER, content=picture(), headers={"content-type": "image/png"})
    assert raw.status_code == 200, raw.text
    assert {each["label"] for each in raw.json()} == {"a", "b", "c"}
    assert raw.headers["x-assay-units"] == "1 images"
    around = {"inputs": base64.b64encode(picture()).decode(), "parameters": {"top_k": 1}}
    best = client.post(SORTER, json=around)
    assert best.json() == raw.json()[:1]

    truncated = picture(kind="JPEG")[:300]
    for content, said in (
        (b"", "empty"),
        (b"no image at all", "expected"),
        (truncated, "not a readable JPEG"),
        (picture((17_000, 1)), "pixels"),
    ):
        refused = client.post(SORTER, content=content, headers={"content-type": "image/png"})
        assert refused.status_code == 400, (said, refused.text)
        assert said in refused.json()["error"]["message"]
    huge = client.post(SORTER, content=b"\x89PNG" + bytes(40 * 1024**2))
    assert huge.status_code in (413, 415), huge.text
    wrong = client.post("/v1/classify", json={"model": "sorter", "input": "a"})
    assert wrong.status_code == 400
    assert SORTER.rpartition("/")[0] in wrong.json()["error"]["message"]
    hidden = client.post(
        "/v1/tasks/image-classification/another",
        content=picture(),
        headers={"content-type": "image/png"},
    )
    assert hidden.status_code == 404

    wait_until(lambda: UsageRecord.objects.filter(outcome="ok").count() == 2)
    request_id = raw.headers["x-request-id"]
    assert UsageRecord.objects.get(request_id=request_id).outcome == "ok"
    for log, process in (("log", "web"), ("engine.log", "worker")):
        wait_until(lambda log=log: request_id in logged(tmp_path / log))  # type: ignore[misc]
        assert logged(tmp_path / log)[request_id] == {process}
    used = UsageRecord.objects.filter(outcome="ok").values_list("unit", "units")
    assert list(used) == [("images", 1), ("images", 1)]
    wait_until(lambda: stored() == [])


def test_a_text_is_spoken_for_unmodified_clients_and_metered_in_characters(
    serve: Callable[..., httpx.Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundfile
    from huggingface_hub import InferenceClient
    from openai import BadRequestError, OpenAI

    from tests.unit.tasks.test_text_to_speech import save_voice, stand_in

    espeak = {"ASSAY_ESPEAK_NG": str(stand_in(tmp_path))}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    http = serve("text-to-speech", "voice", save_voice(tmp_path / "model"), **espeak)
    token = http.headers["authorization"].removeprefix("Bearer ")
    client = OpenAI(base_url=f"{http.base_url}/v1", api_key=token, max_retries=0)
    for form, name in (("mp3", "MP3"), ("opus", "OGG"), ("wav", "WAV")):
        spoken = client.audio.speech.create(
            model="voice", voice="joe", input="good day", response_format=form
        ).read()
        assert soundfile.info(io.BytesIO(spoken)).format == name
    pcm = client.audio.speech.create(
        model="voice", voice="joe", input="good day", response_format="pcm"
    )
    assert len(pcm.read()) == soundfile.info(io.BytesIO(spoken)).frames * 2
    with pytest.raises(BadRequestError, match="speaks as joe"):
        client.audio.speech.create(model="voice", voice="alloy", input="good day")
    generic = InferenceClient(model=f"{http.base_url}/v1/tasks/text-to-speech/voice", token=token)
    assert generic.text_to_speech("good day")[:4] == b"fLaC"
    wait_until(lambda: UsageRecord.objects.filter(units=8).count() == 5)
    wait_until(lambda: stored() == [])


def test_clients_of_others_sort_embed_and_ask_about_images(
    serve: Callable[..., httpx.Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import InferenceClient

    from tests.unit.tasks.tiny_clip import save_tiny_clip

    # Trainers switch it on in their process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    client = serve("zero-shot-image-classification", "clip", save_tiny_clip(tmp_path / "m"))
    token = client.headers["authorization"].removeprefix("Bearer ")
    path = "/v1/tasks/zero-shot-image-classification/clip"
    hugging_face = InferenceClient(model=str(client.base_url.join(path)), token=token)
    found = hugging_face.zero_shot_image_classification(picture(), ["a bag", "a boot", "a coat"])
    assert {each.label for each in found} == {"a bag", "a boot", "a coat"}
    assert sum(each.score for each in found) == pytest.approx(1, abs=1e-4)
    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    openai_client = openai.OpenAI(
        base_url=str(client.base_url.join("/v1")), api_key=token, _strict_response_validation=True
    )
    vectors = openai_client.embeddings.create(
        model="clip",
        input=["a bag", {"image": url}, "a boot"],  # type: ignore[list-item]
        encoding_format="float",
    )
    assert len(vectors.data) == 3
    assert vectors.data[0].embedding != vectors.data[2].embedding
    wait_until(lambda: stored() == [])


def test_a_chat_about_images_is_answered_whole_and_streamed(
    serve: Callable[..., httpx.Client], tmp_path: Path
) -> None:
    from tests.unit.tasks.tiny_llava import save_tiny_llava

    client = serve("image-text-to-text", "eyes", save_tiny_llava(tmp_path / "m"))
    token = client.headers["authorization"].removeprefix("Bearer ")
    chat = openai.OpenAI(
        base_url=str(client.base_url.join("/v1")), api_key=token, _strict_response_validation=True
    ).chat.completions
    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    image: Any = {"type": "image_url", "image_url": {"url": url}}
    messages: Any = [{"role": "user", "content": [image, {"type": "text", "text": "Same?"}, image]}]
    whole = chat.create(model="eyes", messages=messages, max_tokens=6, temperature=0)
    assert whole.usage is not None
    # Four positions for each image, and the text.
    assert whole.usage.prompt_tokens > 8
    pieces = chat.create(model="eyes", messages=messages, max_tokens=6, temperature=0, stream=True)
    streamed = "".join(each.choices[0].delta.content or "" for each in pieces if each.choices)
    assert streamed == whole.choices[0].message.content
    fetched = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}]
    refused = client.post(
        "/v1/chat/completions",
        json={"model": "eyes", "messages": [{"role": "user", "content": fetched}]},
    )
    assert refused.status_code == 400
    assert "never fetched" in refused.json()["error"]["message"]
    wait_until(lambda: stored() == [])
