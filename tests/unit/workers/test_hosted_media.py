"""Recordings and images that providers make: bounded, of the requested kind, and never fetched."""

from __future__ import annotations

import asyncio
import base64
import threading
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.inputs import Inputs, Options
from tasks.text_to_image.schema import DrawingInputs, DrawingOptions
from tasks.text_to_speech.schema import SpeechInputs, SpeechOptions
from tests.unit.workers.provider import (
    Answers,
    Behavior,
    Provider,
    Received,
    calling,
    head,
    replies,
)
from tests.waiting import PATIENCE_S
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.wire import Done

PNG = b"\x89PNG\r\n\x1a\nimage"
WAV = b"RIFF\x10\0\0\0WAVEsound"
MP3 = b"ID3 sound"


def asked(
    folder: Path, behave: Behavior, inputs: Inputs, options: Options, operation: str, **fields: Any
) -> tuple[Answers, Provider]:
    with calling(folder, behave, operation=operation, **fields) as (caller, provider):
        answers = Answers()
        request = EngineRequest("req_1", inputs, options, stream=False, units=9)
        caller.engine.submit(request, answers)
        assert answers.end
    return answers, provider


def spoken(
    folder: Path, behave: Behavior, inputs: SpeechInputs | None = None, **options: Any
) -> tuple[Answers, Provider]:
    inputs = inputs or SpeechInputs(text="Good day.")
    return asked(folder, behave, inputs, SpeechOptions(**options), "speech")


def drawn(folder: Path, behave: Behavior, **inputs: Any) -> tuple[Answers, Provider]:
    prompt = DrawingInputs(prompt="A house", **inputs)
    permitted = ["n", "size", "seed", "response_format"]
    return asked(folder, behave, prompt, DrawingOptions(), "images", parameters=permitted)


def images(*files: bytes) -> dict[str, Any]:
    return {"created": 1, "data": [{"b64_json": base64.b64encode(each).decode()} for each in files]}


def test_a_text_is_spoken_by_the_first_voice_and_metered_in_characters(tmp_path: Path) -> None:
    answers, provider = spoken(tmp_path, replies(WAV, "Content-Type: audio/wav"))
    (result,) = answers.done.results or []
    assert (result.data, result.content_type) == (WAV, "audio/wav")
    assert (answers.done.units, answers.done.estimated) == (9, False)
    (received,) = provider.received
    assert received.path == "/v1/audio/speech"
    assert received.json == {
        "model": "test-1",
        "input": "Good day.",
        "voice": "ash",
        "response_format": "wav",
    }


@pytest.mark.parametrize(
    ("form", "data", "stated", "kept"),
    [
        ("mp3", MP3, "audio/mpeg", "audio/mpeg"),
        ("mp3", b"\xff\xfb sound", "audio/mp3; rate=24000", "audio/mpeg"),
        ("flac", b"fLaC sound", "audio/x-flac", "audio/flac"),
        ("opus", b"OggS sound", "audio/opus", "audio/ogg"),
        ("wav", WAV, "application/octet-stream", "audio/wav"),
    ],
)
def test_a_recording_has_the_requested_format(
    tmp_path: Path, form: str, data: bytes, stated: str, kept: str
) -> None:
    answers, provider = spoken(tmp_path, replies(data, f"Content-Type: {stated}"), format=form)
    (result,) = answers.done.results or []
    assert (result.data, result.content_type) == (data, kept)
    assert provider.received[0].json["response_format"] == form


@pytest.mark.parametrize(
    ("behave", "fault"),
    [
        (replies({"error": {"message": "x"}}), "of type application/json; "),
        (replies(b"<html>", "Content-Type: text/html"), "of type text/html; "),
        (replies(WAV, "Content-Type: audio/mpeg"), "of type audio/mpeg; "),
        (replies(MP3, "Content-Type: audio/wav"), "not a wav recording"),
        (replies(b"", "Content-Type: audio/wav"), "not a wav recording"),
        (replies(b"https://x.example/a.wav", "Content-Type: audio/wav"), "not a wav recording"),
    ],
)
def test_an_answer_that_is_no_such_recording_is_a_failure(
    tmp_path: Path, behave: Behavior, fault: str
) -> None:
    failed = spoken(tmp_path, behave)[0].failed
    assert (failed.code, failed.status, failed.units) == ("provider_failed", 502, 0)
    assert fault in failed.message


def test_a_recording_in_small_chunks_is_bounded(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Type: audio/wav", f"Content-Length: {2**40}") + WAV)
        for _ in range(40):
            writer.write(bytes(2**20))
            await writer.drain()

    failed = spoken(tmp_path, behave)[0].failed
    assert "sent more than 33,554,432 bytes" in failed.message


def test_a_recording_that_breaks_off_is_a_failure(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Type: audio/wav", "Content-Length: 1000") + WAV)
        await writer.drain()
        writer.close()

    assert spoken(tmp_path, behave)[0].failed.code == "provider_failed"


def test_a_cancellation_while_a_recording_is_stored_keeps_its_end(tmp_path: Path) -> None:
    storing, stored = threading.Event(), threading.Event()
    ends: list[Any] = []

    def sink(event: Any) -> None:
        storing.set()
        assert stored.wait(PATIENCE_S)
        ends.append(event)

    behave = replies(WAV, "Content-Type: audio/wav")
    with calling(tmp_path, behave, operation="speech") as (caller, _):
        request = EngineRequest("req_1", SpeechInputs(text="Hi"), SpeechOptions(), stream=False)
        caller.engine.submit(request, sink)
        assert storing.wait(PATIENCE_S)
        # The event loop goes on while the sink waits.
        caller.loop.run(asyncio.sleep(0)).result(PATIENCE_S)
        caller.engine.cancel("req_1")
        threading.Timer(0.1, stored.set).start()
        caller.engine.close()
    assert [type(each) for each in ends] == [Done]


def test_images_are_read_from_the_answer(tmp_path: Path) -> None:
    body = images(PNG, b"\xff\xd8\xffimage") | {"usage": {"input_tokens": 7, "output_tokens": 90}}
    answers, provider = drawn(tmp_path, replies(body), n=2, width=64, height=32, seed=2**32 - 1)
    first, second = answers.done.results or []
    assert (first.data, first.content_type, first.details) == (
        PNG,
        "image/png",
        {"seed": 2**32 - 1},
    )
    assert (second.content_type, second.details) == ("image/jpeg", {"seed": 0})
    done = answers.done
    assert (done.prompt_tokens, done.completion_tokens, done.units) == (7, 90, 9)
    (received,) = provider.received
    assert received.path == "/v1/images/generations"
    assert received.json == {
        "model": "test-1",
        "prompt": "A house",
        "n": 2,
        "size": "64x32",
        "seed": 2**32 - 1,
        "response_format": "b64_json",
    }


def test_the_url_of_an_image_is_never_fetched(tmp_path: Path) -> None:
    def with_url(received: Received, writer: asyncio.StreamWriter) -> Any:
        url = f"http://{received.headers['host']}/secret.png"
        return replies({"data": [{"url": url}]})(received, writer)

    answers, provider = drawn(tmp_path, with_url)
    assert "URL of an image, which is never fetched" in answers.failed.message
    assert len(provider.received) == 1


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (images(), "0 images; 1 were requested"),
        (images(PNG, PNG), "2 images; 1 were requested"),
        (images(b"GIF89a"), "not a PNG, JPEG or WebP image"),
        (images(b"<svg/>"), "not a PNG, JPEG or WebP image"),
        ({"data": [{"b64_json": "%%%"}]}, "malformed"),
        ({"data": [{"b64_json": 7}]}, "it has no image"),
        ({"data": [{}]}, "it has no image"),
        ({"data": None}, "malformed"),
        ({"error": {"message": "unsafe prompt"}}, "unsafe prompt"),
        (b"PNG", "malformed"),
    ],
)
def test_an_answer_without_the_images_is_a_failure(tmp_path: Path, body: Any, fault: str) -> None:
    failed = drawn(tmp_path, replies(body))[0].failed
    assert (failed.code, failed.units) == ("provider_failed", 0)
    assert fault in failed.message


def test_an_image_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    (result,) = drawn(tmp_path, replies(images(PNG + bytes(10**7))))[0].done.results or []
    assert len(result.data) == len(PNG) + 10**7


@pytest.mark.parametrize(
    ("operation", "inputs", "options", "reason"),
    [
        ("speech", {"voice": "joe"}, {}, "voice is 'joe'; this model speaks as ash, coral"),
        ("speech", {}, {"speed": 2.0}, "does not permit speed"),
        ("speech", {}, {"instructions": "Whisper."}, "does not permit instructions"),
        ("images", {"n": 2}, {}, "does not permit n"),
        ("images", {"width": 64, "height": 64}, {}, "does not permit size"),
        ("images", {"seed": 0}, {}, "does not permit seed"),
        ("images", {"negative_prompt": "rain"}, {}, "honor negative_prompt"),
        ("images", {}, {"steps": 5}, "honor steps"),
        ("images", {}, {"guidance": 5.0}, "honor guidance"),
        ("images", {}, {"truncate": "end"}, "honor truncate"),
    ],
)
def test_what_the_provider_cannot_honor_is_refused_by_name(
    tmp_path: Path, operation: str, inputs: Any, options: Any, reason: str
) -> None:
    request: tuple[Inputs, Options] = (
        (SpeechInputs(text="Hi", **inputs), SpeechOptions(**options))
        if operation == "speech"
        else (DrawingInputs(prompt="Hi", **inputs), DrawingOptions(**options))
    )
    with calling(tmp_path, replies({}), operation=operation) as (caller, provider):
        with pytest.raises(RequestRefused, match=reason):
            caller.ask(*request, stream=False)
        assert provider.received == []
