"""Text to speech: a voice of Piper's shape speaks, in every format, for unmodified clients."""

from __future__ import annotations

import io
import json
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import MediaResult
from registry.catalog.requests import Body, RequestInvalid
from tasks.text_to_speech.endpoints import RecordingRenderer
from tasks.text_to_speech.schema import SpeechInputs, SpeechOptions
from tests.unit.registry.onnx_models import helper, onnx
from tests.unit.tasks.serving import served
from tests.unit.workers.recording import Answer, Recorder
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.trainers.protocol import BadMaterial

pytestmark = pytest.mark.torch

TASK = get_task("text-to-speech")
SPEECH, GENERIC = TASK.endpoints
# Says letters as they are, and one line for each paragraph.
STAND_IN = """#!/bin/sh
case "$*" in *--version*) echo eSpeak; exit;; *--stdout*) exit 1;; esac
sed -e 's/[^a-z ]//g'
"""
CONFIG = {
    "architectures": ["PiperVoice"],
    "voices": ["joe"],
    "audio": {"sample_rate": 22_050},
    "espeak": {"voice": "en-us"},
    "inference": {"noise_scale": 0.6, "length_scale": 1, "noise_w": 0.8},
    "phoneme_id_map": {
        each: [number] for number, each in enumerate("_^$ !,.?abcdefghijklmnopqrstuvwxyz")
    },
}


def save_voice(folder: Path, **changes: Any) -> Path:
    """A graph with Piper's ports: each phoneme is a buzz as long as the length scale says."""
    single, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    constant = helper.make_tensor
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input"], ["numbers"], to=single),
            helper.make_node("Mul", ["numbers", "quiet"], ["buzz"]),
            helper.make_node("Gather", ["scales", "second"], ["scale"]),
            helper.make_node("Mul", ["scale", "step"], ["length"]),
            helper.make_node("Cast", ["length"], ["count"], to=whole),
            helper.make_node("Concat", ["one", "count"], ["repeats"], axis=0),
            helper.make_node("Tile", ["buzz", "repeats"], ["output"]),
        ],
        "voice",
        [
            helper.make_tensor_value_info("input", whole, ["batch", "phonemes"]),
            helper.make_tensor_value_info("input_lengths", whole, ["batch"]),
            helper.make_tensor_value_info("scales", single, [3]),
        ],
        [helper.make_tensor_value_info("output", single, ["batch", "samples"])],
        [
            constant("quiet", single, [], [0.01]),
            constant("second", whole, [1], [1]),
            constant("step", single, [1], [100.0]),
            constant("one", whole, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder


def stand_in(folder: Path) -> Path:
    """Write a stand-in for espeak-ng, which is no part of Assay; return its path."""
    path = folder / "espeak-ng"
    path.write_text(STAND_IN)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = stand_in(tmp_path)
    monkeypatch.setenv("ASSAY_ESPEAK_NG", str(path))
    return path


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Any]:
    engine = load(save_voice(tmp_path / "model"))
    yield engine
    engine.close()


def speak(engine: Any, text: str, voice: str | None = None, **options: Any) -> Any:
    answer = Answer()
    request = EngineRequest("r", SpeechInputs(text=text, voice=voice), SpeechOptions(**options))
    engine.submit(request, answer)
    return answer.done()


def seconds(done: Any) -> float:
    (output,) = done.results
    return float(output.details["seconds"])


@pytest.mark.parametrize(
    ("form", "content_type", "name"),
    [
        ("wav", "audio/wav", "WAV"),
        ("flac", "audio/flac", "FLAC"),
        ("mp3", "audio/mpeg", "MP3"),
        ("opus", "audio/ogg", "OGG"),
    ],
)
def test_a_text_is_spoken_in_every_format_and_metered_in_characters(
    engine: Any, form: str, content_type: str, name: str
) -> None:
    text = "good morning, all. how are you?"
    done = speak(engine, text, format=form)
    assert done.units == len(text)
    (output,) = done.results
    assert output.content_type == content_type
    with soundfile.SoundFile(io.BytesIO(output.data)) as file:
        assert (file.format, file.samplerate, file.channels) == (name, 24_000, 1)
        assert file.frames / 24_000 == pytest.approx(seconds(done), abs=0.1)


def test_speed_shortens_the_recording(engine: Any) -> None:
    text = "a sentence that is long enough to measure"
    usual, fast, slow = (seconds(speak(engine, text, speed=speed)) for speed in (1, 2, 0.5))
    assert (fast, slow) == pytest.approx((usual / 2, usual * 2), rel=0.05)


def test_a_long_text_is_spoken_whole(engine: Any) -> None:
    short = seconds(speak(engine, "word " * 20))
    assert seconds(speak(engine, "word " * 800)) == pytest.approx(short * 40, rel=0.1)


def test_what_cannot_be_spoken_is_refused(engine: Any) -> None:
    for text in ("!!!", "… — ?", "日本"):
        with pytest.raises(RequestRefused, match="no words"):
            speak(engine, text)
    with pytest.raises(RequestRefused, match="this model speaks as joe"):
        speak(engine, "hello", voice="alloy")
    with pytest.raises(RequestRefused, match="instructions are not supported"):
        speak(engine, "hello", instructions="Whisper.")
    assert speak(engine, "hello", voice="joe").results


def test_clauses_keep_their_marks_and_numbers_stay_whole(program: Path) -> None:
    from tasks.text_to_speech.phonemes import Phonemizer

    program.write_text("#!/bin/sh\ncat\n")
    found = Phonemizer("en-us").clauses('Is 3.5 more than 1,000? No, "never"! Well... good\n\nbye')
    assert [(each.phonemes, each.mark) for each in found] == [
        ("Is 3.5 more than 1,000", "?"),
        ("No", ","),
        ('"never"!', "") if found[2].mark == "" else ('"never"', "!"),
        *[(each.phonemes, each.mark) for each in found[3:]],
    ]
    assert found[-1].phonemes.endswith("bye")


def test_without_espeak_ng_the_voice_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.engines.architectures import UnsupportedModel

    monkeypatch.setenv("ASSAY_ESPEAK_NG", str(tmp_path / "missing"))
    with pytest.raises(UnsupportedModel, match="apt install espeak-ng"):
        load(save_voice(tmp_path / "model"))


def test_a_program_that_fails_is_a_refusal(engine: Any, program: Path) -> None:
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(RequestRefused, match="could not be turned into phonemes"):
        speak(engine, "hello")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architectures": ["BertModel"]}, "not one of: PiperVoice"),
        ({"voices": []}, "must name one voice"),
        ({"voices": "joe"}, "must name one voice"),
        ({"espeak": {"voice": "en; rm -rf /"}}, "as its language"),
        ({"espeak": {"voice": "--path=/etc"}}, "as its language"),
        ({"espeak": None}, "as its language"),
        ({"audio": {"sample_rate": 10**9}}, "audio.sample_rate"),
        ({"inference": {}}, "inference.noise_scale"),
        ({"phoneme_id_map": {"a": [1]}}, "lacks '_'"),
        ({"phoneme_id_map": {"_": ["x"]}}, "one number"),
        ({"phoneme_id_map": None}, "must contain a phoneme_id_map"),
    ],
)
def test_a_voice_that_is_not_plain_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    from workers.engines.architectures import UnsupportedModel

    with pytest.raises(UnsupportedModel, match=reason):
        load(save_voice(tmp_path / "model", **changes))


def as_json(**fields: Any) -> Body:
    return Body("application/json", json.dumps(fields).encode())


BODY = {"model": "voice", "input": "Good day.", "voice": "joe"}


def test_openais_shape_becomes_inputs_and_options() -> None:
    plan = SPEECH.plan(as_json(**BODY, speed=2), "req_1", "")
    assert (plan.model, plan.units, plan.tokens) == ("voice", 9, 0)
    assert plan.inputs == SpeechInputs(text="Good day.", voice="joe")
    assert plan.options == SpeechOptions(speed=2.0, format="mp3")
    plan = SPEECH.plan(as_json(**{**BODY, "voice": "default"}), "req_1", "")
    assert plan.inputs == SpeechInputs(text="Good day.")
    plan = GENERIC.plan(as_json(inputs="Good day."), "req_1", "voice")
    assert (plan.model, plan.options) == ("voice", SpeechOptions(format="flac"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (Body("application/json", b"{"), "JSON"),
        (as_json(), "model"),
        (as_json(**{**BODY, "input": ""}), "input"),
        (as_json(**{**BODY, "input": "   "}), "input"),
        (as_json(**{**BODY, "input": "x" * 4_097}), "input"),
        (as_json(**{**BODY, "voice": ["joe"]}), "voice"),
        (as_json(**BODY, speed=9), "speed"),
        (as_json(**BODY, response_format="aac"), "aac is not supported"),
        (as_json(**BODY, response_format="exe"), "response_format"),
        (as_json(**BODY, stream_format="sse"), "sse is not supported"),
        (as_json(**BODY, instructions=""), "instructions"),
        (as_json(**BODY, more=1), "more"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_the_reason(body: Body, reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        SPEECH.plan(body, "req_1", "")


@given(
    st.dictionaries(
        st.sampled_from(["model", "input", "voice", "speed", "response_format", "inputs"]),
        st.none() | st.floats() | st.text(max_size=9) | st.lists(st.integers(), max_size=2),
    )
)
def test_any_body_is_read_or_refused_in_words(fields: dict[str, Any]) -> None:
    for endpoint in TASK.endpoints:
        with suppress(RequestInvalid):
            assert endpoint.plan(as_json(**fields), "req_1", "voice").units > 0


def wav() -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, [0.0, 0.5, -0.5, 0.25], 24_000, format="WAV", subtype="PCM_16")
    return stream.getvalue()


@pytest.mark.parametrize("form", ["wav", "pcm"])
def test_openais_client_works_unmodified(form: str) -> None:
    from openai import OpenAI

    answer = EngineAnswer("stop", 0, 0, results=[MediaResult(wav(), "audio/wav")])
    with served(SPEECH, answer) as (url, plans):
        client = OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0)
        found = client.audio.speech.create(
            model="voice", input="Good day.", voice="joe", response_format=form
        )
        assert found.read() == (wav() if form == "wav" else wav()[44:])
    assert plans[0].options == SpeechOptions(format="wav")


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(data) if size is None else size) + data


def test_samples_are_taken_from_any_wav_file_of_their_form() -> None:
    form = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 24_000, 48_000, 2, 16))
    samples = b"\1\2\3\4"
    piped = b"RIFF\xff\xff\xff\xffWAVE" + form + chunk(b"LIST", b"abc\0")
    piped += chunk(b"data", samples, 0xFFFFFFFF)
    renderer = RecordingRenderer("pcm")

    def rendered(data: bytes) -> bytes:
        answer = EngineAnswer("stop", 0, 0, results=[MediaResult(data, "audio/wav")])
        return renderer.whole(answer).body

    assert rendered(piped) == samples
    slow = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    other = b"RIFF\0\0\0\0WAVE" + chunk(b"fmt ", slow) + chunk(b"data", samples)
    hostile = b"RIFF\0\0\0\0WAVE" + chunk(b"fill", b"") * 1_000 + form + chunk(b"data", samples)
    for data in (other, hostile, piped[:30], b"RIFF", b""):
        with pytest.raises(RequestInvalid, match="use wav"):
            rendered(data)


def test_the_hugging_face_client_works_unmodified(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    answer = EngineAnswer("stop", 0, 0, results=[MediaResult(b"fLaC", "audio/flac")])
    with served(GENERIC, answer) as (url, plans):
        client = InferenceClient(model=f"{url}{GENERIC.path}/voice", token="key")
        assert client.text_to_speech("Good day.") == b"fLaC"
    assert plans[0].inputs == SpeechInputs(text="Good day.")


def scored(heard: list[str], texts: list[str]) -> Any:
    from tasks.text_to_speech.score import score
    from workers.engines.runner import MediaOutput
    from workers.trainers.evaluation import Outcome, ScoreRequest

    def judge(asked: Any) -> list[Any]:
        return [Outcome("", [{"text": text}]) for text in heard[: len(asked)]]

    outcomes = [Outcome("", [MediaOutput(wav(), "audio/wav")]) for _ in texts]
    rows = [{"text": text} for text in texts]
    return score(ScoreRequest(rows, outcomes, None, None, Recorder(), judge))


def test_a_voice_is_scored_by_what_its_judge_hears() -> None:
    found = scored(["good day", "fine"], ["Good day!", "Fine weather."])
    assert found.metrics["wer"] == pytest.approx(1 / 4)
    # The stand-in does not speak, so that there is nothing to hear.
    assert (found.baseline_name, found.baseline["wer"]) == ("silence", 1)
    sample = found.details["samples"][0]
    assert sample["output"] == "Heard: good day"
    assert sample["output_audio"].startswith("data:audio/ogg;base64,")


def test_a_score_needs_a_judge_and_words() -> None:
    from tasks.text_to_speech.score import score
    from workers.trainers.evaluation import ScoreRequest

    with pytest.raises(BadMaterial, match="judge"):
        score(ScoreRequest([], [], None, None, Recorder()))
    with pytest.raises(BadMaterial, match="no words"):
        scored(["x"], ["!"])


def heard_seconds(request: Any) -> Any:
    """A score that asks its judge, a voice activity detector, how long the recordings are."""
    from assay_tasks_extra.voice_activity_detection.schema import DetectionOptions
    from registry.catalog.inputs import OneRecording
    from workers.trainers.protocol import EvaluationResult

    recordings = [io.BytesIO(outcome.results[0].data) for outcome in request.outcomes]
    found = request.judge(
        [(OneRecording(audio=recording), DetectionOptions()) for recording in recordings]
    )
    total = sum(each.results[0]["duration"] for each in found)
    return EvaluationResult({"seconds": total}, {}, "", len(found))


@pytest.mark.parametrize("readable", [True, False])
def test_the_judge_answers_requests_of_its_own_task_and_is_recorded(
    tmp_path: Path, readable: bool
) -> None:
    from tests.unit.tasks.test_voice_activity_detection import loud_detector
    from workers.run.execution import evaluation_plan
    from workers.trainers.evaluation import evaluate
    from workers.trainers.protocol import EvaluationRequest, Judge

    detector = get_task("voice-activity-detection")
    folder = loud_detector(tmp_path / "judge")
    if not readable:
        (folder / "model.onnx").write_bytes(b"damaged")
    judge = Judge(
        "ear v3", "d" * 64, folder, detector.engine, detector.runner, detector.architectures
    )
    data = tmp_path / "test.jsonl"
    data.write_text('{"text": "hello there"}\n{"text": "good bye"}\n')
    request = EvaluationRequest(
        replace(evaluation_plan(TASK), score=f"{__name__}:heard_seconds"),
        save_voice(tmp_path / "voice"),
        None,
        data,
        judge=judge,
    )
    if not readable:
        with pytest.raises(BadMaterial, match="ear v3 cannot be used"):
            evaluate(request, Recorder())
        return
    found = evaluate(request, Recorder())
    assert found.metrics["seconds"] > 0.1
    assert found.details["judge"] == {"version": "ear v3", "digest": "d" * 64}
