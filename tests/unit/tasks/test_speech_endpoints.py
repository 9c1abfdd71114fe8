"""Both endpoints of speech recognition: every body, every format, official clients."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import soundfile

from registry.catalog import get_task
from registry.catalog.endpoints import Answer, Plan, Rendered
from registry.catalog.requests import Body, RequestInvalid
from tasks.automatic_speech_recognition.schema import SpeechOptions
from tests.unit.tasks.serving import served

TASK = get_task("automatic-speech-recognition")
FORM, TRANSLATION, RAW = TASK.endpoints
AUDIO = base64.b64decode(TASK.sample["inputs"])


def segment(start: float, end: float, text: str) -> dict[str, Any]:
    return {
        "start": start,
        "end": end,
        "text": text,
        "tokens": [1, 2],
        "avg_logprob": -0.1,
        "compression_ratio": 0.9,
        "no_speech_prob": 0.01,
    }


def window(start: float, end: float, *parts: dict[str, Any]) -> dict[str, Any]:
    return {
        "start": start,
        "end": end,
        "text": "".join(part["text"] for part in parts).strip(),
        "language": "en",
        "language_name": "english",
        "segments": list(parts),
    }


ANSWER = Answer(
    "stop",
    0,
    0,
    results=[
        window(0.0, 25.5, segment(0.0, 2.5, " Good day."), segment(2.5, 5.04, " A --> b.")),
        window(25.5, 30.0),
        window(30.0, 31.2, segment(30.0, 31.0, " End.")),
    ],
    units=32,
)
TEXT = "Good day. A --> b. End."


def form(fields: list[tuple[str, str]], files: list[tuple[str, bytes]]) -> Body:
    parts = [
        b'--x\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (name.encode(), value.encode())
        for name, value in fields
    ]
    parts += [
        b'--x\r\ncontent-disposition: form-data; name="%s"; filename="a.wav"\r\n\r\n%s\r\n'
        % (name.encode(), data)
        for name, data in files
    ]
    return Body("multipart/form-data", b"".join(parts) + b"--x--\r\n", "boundary=x")


def read(*fields: tuple[str, str]) -> Plan:
    return FORM.read(form([("model", "scribe"), *fields], [("file", AUDIO)]), "req_1", "")


def test_the_sample_is_a_recording() -> None:
    samples, rate = soundfile.read(io.BytesIO(AUDIO))
    assert (len(samples), rate, float(np.abs(samples).max())) == (400, 4_000, 0)


def test_a_form_is_read() -> None:
    plan = read(("language", "de"), ("temperature", "0.4"), ("response_format", "srt"))
    assert plan.model == "scribe"
    audio = plan.inputs.to_wire()["audio"]
    assert (audio.kind, audio.data, audio.param) == ("audio", AUDIO, "file")
    assert plan.options == SpeechOptions(language="de", temperature=0.4, segments=True)
    assert plan.tokens == 0
    assert read().options == SpeechOptions()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([("response_format", "mp3")], "response_format"),
        ([("temperature", "2")], "temperature"),
        ([("temperature", "hot")], "temperature"),
        ([("language", "English, please")], "language"),
        ([("timestamp_granularities[]", "word")], "times of words are not known; use"),
        ([("prompt", "")], "prompt"),
        ([("stream", "True")], "not streamed; leave stream out"),
        ([("stream", "maybe")], "stream must be false"),
        ([("include[]", "logprobs")], "include is not supported"),
        ([("beams", "5")], "beams"),
        ([("language", "en"), ("language", "de")], "occurs twice"),
        ([("model", "other")], "occurs twice"),
    ],
)
def test_fields_that_are_wrong_are_refused(fields: list[tuple[str, str]], reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        read(*fields)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (form([], [("file", AUDIO)]), "model"),
        (form([("model", "m")], []), "file"),
        (form([("model", "m"), ("file", "text")], []), "file"),
        (form([("model", "m")], [("file", b"")]), "empty"),
        (form([("model", "m")], [("file", AUDIO), ("image", AUDIO)]), "image"),
        (form([("model", "m")], [("file", AUDIO), ("file", AUDIO)]), "twice"),
        (Body("multipart/form-data", b"--x\r\n", "boundary=x"), "multipart"),
        (Body("multipart/form-data", b"", "boundary=x"), "multipart"),
        (Body("multipart/form-data", b"--x--", ""), "boundary"),
    ],
)
def test_forms_that_are_wrong_are_refused(body: Body, reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        FORM.read(body, "req_1", "")


def test_a_translation_takes_no_language() -> None:
    fields = [("model", "scribe"), ("temperature", "0.4")]
    plan = TRANSLATION.plan(form(fields, [("file", AUDIO)]), "req_1", "")
    assert plan.options == SpeechOptions(temperature=0.4, translate=True)
    with pytest.raises(RequestInvalid, match="language"):
        TRANSLATION.plan(form([*fields, ("language", "de")], [("file", AUDIO)]), "req_1", "")


# OpenAI marks its method as deprecated.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("response_format", ["json", "text", "verbose_json"])
def test_the_openai_client_reads_translations(response_format: Any) -> None:
    from openai import OpenAI

    with served(TRANSLATION, ANSWER) as (url, plans):
        client = OpenAI(
            base_url=f"{url}/v1", api_key="key", _strict_response_validation=True, max_retries=0
        )
        found: Any = client.audio.translations.create(
            file=("a.wav", AUDIO), model="scribe", response_format=response_format
        )
    assert plans[0].options == SpeechOptions(
        translate=True, segments=response_format == "verbose_json"
    )
    if response_format == "text":
        assert found == f"{TEXT}\n"
        return
    assert found.text == TEXT
    if response_format == "verbose_json":
        assert (found.language, found.duration, len(found.segments)) == ("english", 31.2, 3)


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "vtt", "verbose_json"])
def test_the_openai_client_reads_every_format(response_format: Any) -> None:
    from openai import OpenAI

    with served(FORM, ANSWER) as (url, plans):
        client = OpenAI(
            base_url=f"{url}/v1", api_key="key", _strict_response_validation=True, max_retries=0
        )
        found: Any = client.audio.transcriptions.create(
            file=("a.wav", AUDIO),
            model="scribe",
            language="en",
            temperature=0.2,
            response_format=response_format,
            timestamp_granularities=["segment"],
        )
    (plan,) = plans
    assert plan.inputs.to_wire()["audio"].data == AUDIO
    assert plan.options == SpeechOptions(
        language="en",
        temperature=0.2,
        segments=response_format in ("srt", "vtt", "verbose_json"),
    )
    if response_format == "json":
        assert (found.text, found.usage.seconds) == (TEXT, 32)
    elif response_format == "text":
        assert found == f"{TEXT}\n"
    elif response_format == "srt":
        assert found.startswith(
            "1\n00:00:00,000 --> 00:00:02,500\nGood day.\n\n"
            "2\n00:00:02,500 --> 00:00:05,040\nA → b.\n\n"
            "3\n00:00:30,000 --> 00:00:31,000\nEnd.\n"
        )
    elif response_format == "vtt":
        assert found.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nGood day.\n\n")
    else:
        assert (found.language, found.duration, found.text) == ("english", 31.2, TEXT)
        assert [(each.id, each.start, each.temperature) for each in found.segments] == [
            (0, 0.0, 0.2),
            (1, 2.5, 0.2),
            (2, 30.0, 0.2),
        ]


def test_the_hugging_face_client_works_unmodified(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    # Trainers switch it on in their process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    with served(RAW, ANSWER) as (url, plans):
        client = InferenceClient(model=f"{url}{RAW.path}/scribe", token="key")
        plain = client.automatic_speech_recognition(AUDIO)
        timed = client.automatic_speech_recognition(AUDIO, extra_body={"return_timestamps": True})
    assert [plan.inputs.to_wire()["audio"].data for plan in plans] == [AUDIO, AUDIO]
    assert (plain.text, plain.chunks) == (TEXT, None)
    assert timed.chunks is not None
    assert timed.chunks[1]["timestamp"] == [2.5, 5.04]  # type: ignore[index]


@pytest.mark.parametrize("content_type", ["audio/wav", "application/octet-stream"])
def test_a_recording_is_the_whole_body(content_type: str) -> None:
    plan = RAW.read(Body(content_type, AUDIO), "req_1", "scribe")
    assert (plan.model, plan.inputs.to_wire()["audio"].param) == ("scribe", "inputs")
    assert plan.renderer.whole(ANSWER) == {"text": TEXT}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "inputs"),
        ({"inputs": "?"}, "base64"),
        ({"inputs": "aaaa", "parameters": {"generation_parameters": {}}}, "generation_parameters"),
        ({"inputs": "aaaa", "parameters": {"return_timestamps": "word"}}, "return_timestamps"),
    ],
)
def test_json_that_is_wrong_is_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        RAW.read(Body("application/json", json.dumps(given).encode()), "req_1", "scribe")


def test_an_answer_without_speech_is_empty_in_every_format() -> None:
    silent = Answer("stop", 0, 0, results=[window(0.0, 1.0)], units=1)
    made = {}
    for kind in ("json", "text", "srt", "vtt", "verbose_json"):
        found = read(("response_format", kind)).renderer.whole(silent)
        made[kind] = found.body if isinstance(found, Rendered) else found
    assert made["json"] == {"text": "", "usage": {"type": "duration", "seconds": 1}}
    assert (made["text"], made["srt"], made["vtt"]) == (b"\n", b"", b"WEBVTT\n\n")
    assert made["verbose_json"]["segments"] == []
