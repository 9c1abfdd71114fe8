"""Voice activity detection: a graph of Silero's shape serves, and is measured by steps of time."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from assay_tasks_extra.voice_activity_detection.schema import DetectionOptions
from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.inputs import OneRecording
from registry.catalog.requests import Body, RequestInvalid
from tests.unit.registry.onnx_models import helper, onnx
from tests.unit.workers.recording import Answer, Recorder
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import BadMaterial, EvaluationRequest

pytestmark = pytest.mark.torch

TASK = get_task("voice-activity-detection")
PLAN = TASK.endpoints[0].plan
RATE = 16_000
NOISE = np.random.default_rng(3)


def loud_detector(folder: Path, **changes: Any) -> Path:
    """A graph with Silero's ports that takes what is loud for speech."""
    wanted = {"input": "input", "scale": 400.0, **changes}
    single, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    nodes = [
        helper.make_node("Mul", [wanted["input"], wanted["input"]], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["power"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["power", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "least", "most"], ["output"]),
        helper.make_node("Identity", ["state"], ["stateN"]),
    ]
    graph = helper.make_graph(
        nodes,
        "loud",
        [
            helper.make_tensor_value_info(wanted["input"], single, ["batch", "sequence"]),
            helper.make_tensor_value_info("state", single, [2, "batch", 128]),
            helper.make_tensor_value_info("sr", whole, []),
        ],
        [
            helper.make_tensor_value_info("output", single, ["batch", 1]),
            helper.make_tensor_value_info("stateN", single, [2, "batch", 128]),
        ],
        [
            helper.make_tensor(name, single, [], [value])
            for name, value in (("scale", wanted["scale"]), ("least", 0.0), ("most", 1.0))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "config.json").write_text(json.dumps({"architectures": ["SileroVad"]}))
    return folder


def recording(*spans: tuple[float, float], seconds: float, rate: int = RATE) -> bytes:
    """Loud in the spans, silent elsewhere."""
    samples = np.zeros(int(seconds * rate))
    for start, end in spans:
        part = slice(int(start * rate), int(end * rate))
        samples[part] = NOISE.uniform(-0.5, 0.5, len(samples[part]))
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV")
    return stream.getvalue()


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    engine = load(loud_detector(tmp_path_factory.mktemp("model")))
    yield engine
    engine.close()


def detect(engine: Any, data: bytes, **options: Any) -> Any:
    answer = Answer()
    engine.submit(
        EngineRequest("r", OneRecording(audio=io.BytesIO(data)), DetectionOptions(**options)),
        answer,
    )
    return answer.done()


def spans(done: Any) -> list[tuple[float, float]]:
    (found,) = done.results
    return [(each["start"], each["end"]) for each in found["segments"]]


def test_speech_is_found_and_metered_in_seconds(engine: Any) -> None:
    done = detect(engine, recording((1, 2), (3, 4.5), seconds=5.3, rate=8_000))
    assert done.units == 6
    (first, second) = spans(done)
    assert first == pytest.approx((1, 2), abs=0.08)
    assert second == pytest.approx((3, 4.5), abs=0.08)
    assert all(0.9 < each["score"] <= 1 for each in done.results[0]["segments"])


def test_silence_holds_no_speech(engine: Any) -> None:
    for seconds in (0.01, 3):
        assert spans(detect(engine, recording(seconds=seconds))) == []


def test_settings_join_drop_and_widen_segments(engine: Any) -> None:
    data = recording((1, 2), (2.2, 3), (4, 4.1), seconds=5)
    assert len(spans(detect(engine, data))) == 2
    assert len(spans(detect(engine, data, min_silence_ms=500))) == 1
    assert len(spans(detect(engine, data, min_speech_ms=0))) == 3
    narrow, wide = (
        spans(detect(engine, data, speech_pad_ms=pad, min_silence_ms=500))[0] for pad in (0, 200)
    )
    assert (narrow[0] - wide[0], wide[1] - narrow[1]) == pytest.approx((0.2, 0.2), abs=0.01)
    touching = spans(detect(engine, data, speech_pad_ms=1_000, min_speech_ms=0))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(touching))


def test_a_recording_has_the_same_segments_alone_and_in_a_batch(engine: Any) -> None:
    files = [recording((1, 1 + n / 4), seconds=3 + n / 7) for n in range(1, 8)]
    answers = [Answer() for _ in files]
    for number, (data, answer) in enumerate(zip(files, answers, strict=True)):
        request = EngineRequest(
            f"r{number}", OneRecording(audio=io.BytesIO(data)), DetectionOptions()
        )
        engine.submit(request, answer)
    for data, answer in zip(files, answers, strict=True):
        assert answer.done().results == detect(engine, data).results


def test_what_is_no_recording_is_refused(engine: Any) -> None:
    with pytest.raises(RequestRefused, match="cannot be read"):
        detect(engine, b"not a recording")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"input": "x"}, "takes sr tensor"), ({"scale": -1e9}, None), ({"scale": 1e9}, None)],
)
def test_graphs_of_another_shape_are_refused(
    tmp_path: Path, changes: dict[str, Any], reason: str | None
) -> None:
    from workers.engines.architectures import UnsupportedModel

    folder = loud_detector(tmp_path / "model", **changes)
    if reason is None:
        load(folder).close()
        return
    with pytest.raises(UnsupportedModel, match=reason):
        load(folder)


def test_what_is_not_a_detector_is_refused(tmp_path: Path) -> None:
    from workers.engines.architectures import UnsupportedModel

    folder = loud_detector(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    with pytest.raises(UnsupportedModel, match="not one of: SileroVad"):
        load(folder)
    folder = loud_detector(tmp_path / "model")
    (folder / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(UnsupportedModel, match="cannot be loaded"):
        load(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(UnsupportedModel, match="has no model"):
        load(folder)


SOUND = base64.b64decode(TASK.sample["inputs"])


def as_json(**fields: Any) -> Body:
    return Body("application/json", json.dumps(fields).encode())


def test_a_recording_is_the_whole_body_or_base64_with_settings() -> None:
    plan = PLAN(Body("audio/wav", SOUND), "req_1", "ears")
    assert isinstance(plan.inputs, OneRecording)
    assert (plan.model, plan.inputs.audio.data) == ("ears", SOUND)
    assert plan.options == DetectionOptions()
    sample = dict(TASK.sample)
    plan = PLAN(as_json(**{**sample, "parameters": {"min_speech_ms": 10}}), "req_1", "ears")
    assert plan.options == DetectionOptions(min_speech_ms=10)
    segments = [{"start": 0.5, "end": 1.0, "score": 0.9}]
    results = [{"duration": 2.0, "segments": segments}]
    assert plan.renderer.whole(EngineAnswer("stop", 0, 0, results=results)) == segments


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (Body("audio/wav", b""), "empty"),
        (as_json(inputs="?"), "base64"),
        (as_json(inputs="aaaa", parameters={"threshold": 2}), "threshold"),
        (as_json(inputs="aaaa", parameters={"min_speech_ms": -1}), "min_speech_ms"),
        (as_json(inputs="aaaa", parameters={"top_k": 1}), "top_k"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_the_reason(body: Body, reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        PLAN(body, "req_1", "ears")


@given(
    st.binary(max_size=100),
    st.dictionaries(
        st.sampled_from(["inputs", "parameters", "threshold"]),
        st.none() | st.floats() | st.text(max_size=9) | st.dictionaries(st.text(), st.integers()),
    ),
)
def test_any_body_is_read_or_refused_in_words(data: bytes, fields: dict[str, Any]) -> None:
    for body in (Body("audio/wav", data), Body("application/json", data), as_json(**fields)):
        with suppress(RequestInvalid):
            assert PLAN(body, "req_1", "ears").model == "ears"


def measured(tmp_path: Path, rows: list[Any], files: dict[str, bytes]) -> Any:
    from workers.trainers.evaluation import evaluate

    media = tmp_path / "media"
    media.mkdir()
    for name, data in files.items():
        (media / name).write_bytes(data)
    data_file = tmp_path / "test.jsonl"
    data_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = evaluation_plan(TASK)
    folder = loud_detector(tmp_path / "model")
    return evaluate(EvaluationRequest(plan, folder, None, data_file, None, media), Recorder())


def test_it_is_measured_against_loudness(tmp_path: Path) -> None:
    names = ["a" * 64, "b" * 64]
    rows = [
        {"audio": names[0], "segments": [{"start": 1.0, "end": 3.0}]},
        {"audio": names[1], "segments": []},
    ]
    files = {names[0]: recording((1, 3), seconds=6), names[1]: recording(seconds=2)}
    found = measured(tmp_path, rows, files)
    assert found.metrics["f1"] == pytest.approx(1, abs=0.06)
    assert found.baseline_name == "loudness threshold"
    assert set(found.metrics) == {each.name for each in TASK.metrics}
    sample = found.details["samples"][0]
    assert sample["input_audio"] == names[0]
    assert sample["expected"] == "1.0–3.0 s"
    assert found.details["samples"][1]["output"] == "no speech"
    always = found.details["baselines"][1]["metrics"]
    assert (always["recall"], always["precision"]) == (1, pytest.approx(0.25))


def test_data_without_speech_measures_nothing(tmp_path: Path) -> None:
    rows = [{"audio": "a" * 64, "segments": []}]
    with pytest.raises(BadMaterial, match="mark no speech"):
        measured(tmp_path, rows, {"a" * 64: recording(seconds=1)})
