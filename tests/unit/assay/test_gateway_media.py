"""Media on their way through a gateway: checked, bounded in number, removed at the end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import math
import wave
from typing import Any

import numpy as np
import pytest
from django.conf import settings as django_settings
from PIL import Image
from pydantic import ConfigDict

from assay.gateway.run import media as gateway_media
from assay.gateway.run.media import MediaDesk, media_body_limit
from governance.errors import QuotaExceeded, Unavailable
from governance.usage.units import Unit
from registry.catalog.endpoints import MediaResult, Plan
from registry.catalog.inputs import Inputs, MediaInput
from registry.media.errors import MediaRejected
from registry.media.store import MediaReference, media_open, media_put
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.registry.media_files import container
from workers.references import contains, is_reference, replace_parts
from workers.wire import Done, InferenceRequest

__all__ = ["stage"]


def picture(size: tuple[int, int] = (40, 30), form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "teal").save(stream, form)
    return stream.getvalue()


def video(size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    first, *others = [Image.new("RGB", size, color) for color in ("red", "green", "blue", "teal")]
    first.save(stream, "GIF", save_all=True, append_images=others, duration=100)
    return stream.getvalue()


def sound(seconds: float) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        tone = np.sin(np.arange(math.ceil(8_000 * seconds)) / 10) * 9_000
        file.writeframes(tone.astype("<i2").tobytes())
    return stream.getvalue()


class Anything(Inputs):
    """Inputs of any name."""

    model_config = ConfigDict(extra="allow")


def plan(units: int = 0, **inputs: Any) -> Plan:
    return Plan("m", Anything(**inputs), renderer=None, tokens=5, prompt_tokens=5, units=units)  # type: ignore[arg-type]


@pytest.fixture
async def desk() -> Any:
    desk = MediaDesk()
    yield desk
    await desk.stop()


async def test_a_file_travels_by_reference_and_is_removed_with_its_request(desk: Any) -> None:
    data = picture()
    media = desk.open("a", "a")
    inputs, units = await media.store(
        plan(units=1, image=MediaInput("image", data, "image"), top_k=3), Unit.IMAGES, 7
    )
    assert (inputs["top_k"], units) == (3, 1)
    reference = MediaReference.from_json(inputs["image"])
    assert media_open(reference).read() == data
    await media.close()
    assert not reference.path.exists()


@pytest.mark.parametrize(
    ("unit", "inputs", "units"),
    [
        (Unit.AUDIO_SECONDS, {"audio": MediaInput("audio", sound(2.25), "file")}, 3),
        (Unit.MEGAPIXELS, {"image": MediaInput("image", picture((1200, 1000)), "image")}, 2),
        (Unit.MEGAPIXELS, {"video": MediaInput("video", video((1000, 700)), "video")}, 3),
        (Unit.MEGAPIXELS, {"video": MediaInput("video", container(size=(600, 500)), "v")}, 2),
        (Unit.IMAGES, {"prompt": "a cat"}, 4),
    ],
)
async def test_a_request_is_metered_by_its_media(
    desk: Any, unit: Unit, inputs: dict[str, Any], units: int
) -> None:
    media = desk.open("a", "a")
    _, found = await media.store(plan(units=4, **inputs), unit, 7)
    assert found == units
    await media.close()


async def test_an_image_does_not_wait_for_slow_videos(desk: Any) -> None:
    media, clip = (
        desk.open("a", "department"),
        plan(video=MediaInput("video", video((60, 40)), "video")),
    )
    async with desk.decoders.place("video", "a", "department"):
        waiting = asyncio.ensure_future(media.store(clip, Unit.IMAGES, 7))
        image = plan(image=MediaInput("image", picture(), "image"))
        await asyncio.wait_for(desk.open("a", "department").store(image, Unit.IMAGES, 7), 20)
        assert not waiting.done()
    await waiting
    await media.close()


async def test_a_file_of_another_kind_is_refused_and_nothing_stays(desk: Any) -> None:
    media = desk.open("a", "a")
    given = plan(
        first=MediaInput("image", picture(), "a"), file=MediaInput("audio", picture(), "b")
    )
    with pytest.raises(MediaRejected) as refused:
        await media.store(given, Unit.AUDIO_SECONDS, 7)
    assert "WAV, FLAC, OGG or MP3" in refused.value.message
    assert refused.value.param == "b"  # type: ignore[attr-defined]
    assert media._stored == []
    await media.close()


async def test_only_so_many_bodies_are_in_memory_and_a_stored_one_makes_room(desk: Any) -> None:
    waiting = [desk.open("a", "a") for _ in range(gateway_media.AT_ONCE_PER_KEY)]
    with pytest.raises(QuotaExceeded, match="already sending 4 media files"):
        desk.open("a", "a")
    others = [desk.open(name, name) for name in map(str, range(gateway_media.AT_ONCE - 4))]
    with pytest.raises(Unavailable, match="Too many media files"):
        desk.open("another", "another")
    await waiting[0].store(plan(image=MediaInput("image", picture(), "image")), Unit.IMAGES, 7)
    await desk.open("another", "another").close()
    for each in (*waiting, *others):
        await each.close()
    assert desk._open.total() == 0


async def test_keys_that_send_much_leave_room_for_one_that_sends_little(desk: Any) -> None:
    held = []
    for key in "abcd" * gateway_media.AT_ONCE_PER_KEY:
        with contextlib.suppress(QuotaExceeded):
            held.append(desk.open(key, key))
    assert len(held) < gateway_media.AT_ONCE
    held.append(desk.open("another", "another"))
    for each in held:
        await each.close()


async def test_a_department_with_many_keys_leaves_room_for_another(desk: Any) -> None:
    held = []
    for key in map(str, range(2 * gateway_media.AT_ONCE)):
        with contextlib.suppress(QuotaExceeded, Unavailable):
            held.append(desk.open(key, "department finance"))
    with pytest.raises(QuotaExceeded, match="Your department is already sending"):
        desk.open("a key of its own", "department finance")
    held.append(desk.open("another", "department clinical"))
    for each in held:
        await each.close()
    assert desk._open.total() == 0
    assert desk._places.fits("anybody", gateway_media.AT_ONCE // 2)


async def test_an_answers_files_are_read_once_and_removed(desk: Any) -> None:
    data = picture()
    reference = media_put(data, content_type="image/png", deployment_id=7)
    media = desk.open("a", "a")
    (found,) = await media.results([{**reference.to_json(), "details": {"seed": 7}}])
    assert found == MediaResult(data, "image/png", {"seed": 7})
    await media.close()
    gone = desk.open("a", "a")
    with pytest.raises(Unavailable, match="gone"):
        await gone.results([reference.to_json()])
    await gone.close()


def test_numbers_are_not_searched_and_text_cannot_pass_for_a_reference() -> None:
    class Watched(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            raise AssertionError("a vector was walked through")

    assert not contains([Watched([0.5, 0.25])], is_reference)
    assert not is_reference({"media": "a", "sha256": "b", "content_type": "c"})
    assert not is_reference({"media": "", "sha256": "", "content_type": "", "size": 1, "x": 1})
    assert replace_parts({"a": ("b", 1)}, lambda value: value == 1, str) == {"a": ["b", "1"]}
    assert media_body_limit() > 25 * 1024**2 * 4 / 3


def test_small_bodies_on_a_shared_path_wait_for_no_place_of_media(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.deployment(
        "minilm",
        task="embeddings",
        behavior=lambda request, reply: reply(Done("stop", 1, 0, results=[[1.0]])),
    )
    token = stage.key()
    monkeypatch.setattr(gateway_media, "AT_ONCE_PER_KEY", 0)
    small = {"model": "minilm", "input": "a"}
    assert stage.post("/v1/embeddings", token, json=small).status_code == 200
    large = {"model": "minilm", "input": "a" * (django_settings.GATEWAY_MAX_BODY_BYTES + 1)}
    assert stage.post("/v1/embeddings", token, json=large).status_code == 429
    monkeypatch.setattr(gateway_media, "AT_ONCE_PER_KEY", 4)
    # There is a place for it, but texts may not be as large as images.
    refused = stage.post("/v1/embeddings", token, json=large)
    assert refused.status_code == 413, refused.text


def test_a_small_image_on_a_shared_path_travels_by_reference_and_is_removed(stage: Stage) -> None:
    seen = []

    def answer(request: InferenceRequest, reply: Any) -> None:
        references = [MediaReference.from_json(each) for each in request.inputs["images"]]
        seen.extend(media_open(each).read() for each in references)
        reply(Done("stop", 0, 0, results=[[0.5], [0.25]], units=2))

    stage.deployment("clip", task="zero-shot-image-classification", behavior=answer)
    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    token = stage.key()
    body = {"model": "clip", "input": ["a bag", {"image": url}]}
    found = stage.post("/v1/embeddings", token, json=body)
    assert found.status_code == 200, found.text
    assert [each["embedding"] for each in found.json()["data"]] == [[0.25], [0.5]]
    assert found.headers["x-assay-units"] == "2 images"
    assert seen == [picture()]
    bad = {"model": "clip", "input": {"image": base64.b64encode(b"no image").decode()}}
    refused = stage.post("/v1/embeddings", token, json=bad)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "input.image"
