"""Transcripts of providers: the form that they get, and answers that are not as requested."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from assay.gateway.run.events import answer_of
from registry.catalog.multipart import parse_form
from registry.catalog.requests import Body
from tasks.automatic_speech_recognition.renderers import TranscriptionRenderer
from tasks.automatic_speech_recognition.schema import Recording, SpeechOptions, Window
from tests.unit.workers.provider import (
    Answers,
    Behavior,
    Provider,
    Received,
    calling,
    event,
    replies,
    streams,
)
from workers.egress.probing import probe_audio
from workers.engines.protocol import EngineRequest, RequestRefused

PLAIN = SpeechOptions()
ALL = ["language", "prompt", "segments", "temperature", "translate"]
SEGMENTS = [
    {"id": 0, "start": 0.0, "end": 1.5, "text": " He was", "tokens": [1, 2], "avg_logprob": -0.2},
    {"id": 1, "start": 1.5, "end": 2.25, "text": " amiable."},
]
VERBOSE = {
    "text": " He was amiable.",
    "language": "english",
    "duration": "2.25",
    "segments": SEGMENTS,
}


def asked(
    folder: Path,
    behave: Behavior,
    options: SpeechOptions = PLAIN,
    audio: bytes = b"RIFF sound",
    **fields: Any,
) -> tuple[Answers, Provider]:
    with calling(folder, behave, operation="transcription", **fields) as (caller, provider):
        answers = Answers()
        recording = Recording(audio=BytesIO(audio))
        request = EngineRequest("req_1", recording, options, stream=False, units=3)
        caller.engine.submit(request, answers)
        assert answers.end
    return answers, provider


def fields_of(received: Received) -> tuple[dict[str, list[str]], bytes]:
    kind, _, parameters = received.headers["content-type"].partition("; ")
    form = parse_form(Body(kind, received.body, parameters))
    return form.fields, form.files["file"] or b""


def test_a_recording_is_sent_as_a_form_and_metered_in_seconds(tmp_path: Path) -> None:
    answers, provider = asked(tmp_path, replies({"text": " Hello. "}))
    done = answers.done
    (window,) = TypeAdapter(list[Window]).validate_python(done.results)
    assert (window["text"], window["segments"]) == ("Hello.", [])
    assert (done.units, done.prompt_tokens, done.completion_tokens) == (3, 0, 0)
    assert not done.estimated
    (received,) = provider.received
    assert received.path == "/v1/audio/transcriptions"
    fields, file = fields_of(received)
    assert fields == {"model": ["test-1"], "response_format": ["json"]}
    assert file == b"RIFF sound"
    assert b'filename="recording.wav"' in received.body


@pytest.mark.parametrize(
    ("head", "name"), [(b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b"\xff\xfb", "mp3")]
)
def test_the_name_of_the_file_states_its_format(tmp_path: Path, head: bytes, name: str) -> None:
    _, provider = asked(tmp_path, replies({"text": "Hello."}), audio=head + b" sound")
    assert f'filename="recording.{name}"'.encode() in provider.received[0].body


def test_permitted_settings_are_sent_and_segments_have_times(tmp_path: Path) -> None:
    options = SpeechOptions(language="en", prompt="Ann says:", temperature=0.4, segments=True)
    answers, provider = asked(tmp_path, replies(VERBOSE), options, parameters=ALL)
    fields, _ = fields_of(provider.received[0])
    assert fields == {
        "model": ["test-1"],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["segment"],
        "language": ["en"],
        "prompt": ["Ann says:"],
        "temperature": ["0.4"],
    }
    whole = TranscriptionRenderer("verbose_json", 0.4).whole(answer_of(answers.done))
    assert isinstance(whole, dict)
    assert (whole["duration"], whole["language"]) == (2.25, "english")
    assert [each["text"] for each in whole["segments"]] == [" He was", " amiable."]
    srt = TranscriptionRenderer("srt", 0.0).whole(answer_of(answers.done))
    assert b"00:00:01,500 --> 00:00:02,250" in srt.body  # type: ignore[union-attr]


def test_a_translation_goes_to_its_own_path(tmp_path: Path) -> None:
    options = SpeechOptions(translate=True, segments=True)
    _, provider = asked(tmp_path, replies(VERBOSE), options, parameters=ALL)
    assert provider.received[0].path == "/v1/audio/translations"
    fields, _ = fields_of(provider.received[0])
    assert fields == {"model": ["test-1"], "response_format": ["verbose_json"]}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (SpeechOptions(language="en"), "language"),
        (SpeechOptions(prompt="Ann"), "prompt"),
        (SpeechOptions(temperature=0.5), "temperature"),
        (SpeechOptions(translate=True), "translate"),
        (SpeechOptions(segments=True), "times of segments; use response_format json or text"),
    ],
)
def test_a_setting_that_is_not_permitted_is_refused_by_name(
    tmp_path: Path, options: SpeechOptions, name: str
) -> None:
    with (
        calling(tmp_path, replies({"text": ""}), operation="transcription") as (caller, provider),
        pytest.raises(RequestRefused, match=f"does not permit {name}"),
    ):
        caller.ask(Recording(audio=BytesIO(b"RIFF")), options, stream=False)
    assert provider.received == []


def with_segments(**changes: Any) -> dict[str, Any]:
    return {**VERBOSE, "segments": [{**SEGMENTS[0], **changes}]}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        pytest.param({"words": "x"}, "malformed", id="no text"),
        pytest.param({**VERBOSE, "text": 7}, "not a string", id="a number as text"),
        pytest.param({**VERBOSE, "text": "x" * 10**7}, "at most 1,000,000", id="10 MB of text"),
        pytest.param({"text": "x", "segments": None}, "malformed", id="no segments"),
        pytest.param({**VERBOSE, "segments": SEGMENTS[::-1]}, "order", id="unordered segments"),
        pytest.param({**VERBOSE, "duration": "nan"}, "not a number", id="NaN as duration"),
        pytest.param({**VERBOSE, "duration": -1}, "within a day", id="a negative duration"),
        pytest.param(with_segments(end=1e9), "within a day", id="an end after a century"),
        pytest.param(with_segments(start=2), "before it starts", id="an end before the start"),
        pytest.param(with_segments(text=None), "not a string", id="no text in a segment"),
        pytest.param(with_segments(avg_logprob="x"), "not a number", id="a text as number"),
        pytest.param(with_segments(tokens=["x"]), "whole number", id="texts as tokens"),
        pytest.param(with_segments(tokens=[1e300]), "whole number", id="a huge token"),
        pytest.param({"error": {"message": "too long"}}, "too long", id="an error"),
        pytest.param(b"He was", "malformed", id="plain text"),
    ],
)
def test_an_answer_that_is_no_transcript_is_a_failure(
    tmp_path: Path, body: Any, fault: str
) -> None:
    options = SpeechOptions(segments=True)
    failed = asked(tmp_path, replies(body), options, parameters=ALL)[0].failed
    assert failed.code == "provider_failed"
    assert fault in failed.message
    assert failed.units == 0


@pytest.mark.parametrize(
    ("behave", "stated"),
    [
        (replies(b"<html>Welcome</html>", "Content-Type: text/html"), "text/html"),
        (streams(event({"type": "transcript.text.delta"})), "text/event-stream"),
    ],
)
def test_an_answer_of_another_type_is_a_failure(
    tmp_path: Path, behave: Behavior, stated: str
) -> None:
    failed = asked(tmp_path, behave)[0].failed
    assert f"of type {stated}; application/json was expected" in failed.message


def test_a_request_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (
        calling(tmp_path, replies({"text": ""}), operation="transcription") as (caller, _),
        pytest.raises(RequestRefused, match="at most") as refused,
    ):
        caller.ask(Recording(audio=BytesIO(bytes(65 * 1024**2))), PLAIN, stream=False)
    assert refused.value.status == 413


def test_the_next_target_reads_the_recording_again(tmp_path: Path) -> None:
    recording = Recording(audio=BytesIO(probe_audio()))
    with calling(tmp_path, replies({"text": "x"}), operation="transcription") as (caller, provider):
        for _ in range(2):
            assert caller.ask(recording, PLAIN, stream=False).done
    assert all(fields_of(each)[1] == probe_audio() for each in provider.received)
