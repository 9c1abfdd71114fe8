"""An audio classifier: trained on tones, served from any allowed architecture, measured."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.file_endpoints import LabelOptions
from registry.catalog.inputs import OneRecording
from registry.catalog.requests import Body, RequestInvalid
from tests.thoroughness import first_and_last
from tests.unit.tasks.serving import served
from tests.unit.workers.recording import Answer, Recorder
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import BadMaterial, EvaluationRequest, TrainingRequest

pytestmark = pytest.mark.torch

TASK = get_task("audio-classification")
PLAN = TASK.endpoints[0].plan


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


def classify(engine: Any, audio: Any, **options: Any) -> list[dict[str, Any]]:
    answer = Answer()
    engine.submit(EngineRequest("r", OneRecording(audio=audio), LabelOptions(**options)), answer)
    (labels,) = answer.done().results or []
    return list(labels)


def scores(labels: list[dict[str, Any]]) -> dict[str, float]:
    return {each["label"]: each["score"] for each in labels}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.unit.tasks.tiny_audio import save_tiny

    engine = load(save_tiny("Wav2Vec2ForSequenceClassification", tmp_path_factory.mktemp("tiny")))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    from tests.unit.tasks.tiny_audio import save_tones

    folder = tmp_path_factory.mktemp("media")
    return folder, save_tones(folder, 80)


@pytest.mark.parametrize("architecture", first_and_last(TASK.architectures))
def test_every_allowed_architecture_serves(architecture: str, tmp_path: Path) -> None:
    from tests.unit.tasks.tiny_audio import save_tiny, tone

    engine = load(save_tiny(architecture, tmp_path / "model"))
    try:
        for seconds in (0.01, 1.7):
            labels = classify(engine, io.BytesIO(tone(440, seconds, 8_000)))
            assert sorted(each["label"] for each in labels) == ["a", "b", "c"]
            assert sum(each["score"] for each in labels) == pytest.approx(1, abs=1e-5)
            assert labels == sorted(labels, key=lambda each: -each["score"])
    finally:
        engine.close()


def test_a_recording_has_the_same_scores_alone_and_in_a_batch(
    engine: Any, tones: tuple[Path, list[dict[str, str]]]
) -> None:
    folder, rows = tones
    paths = [folder / row["audio"] for row in rows[:24]]
    answers = [Answer() for _ in paths]
    for number, (path, answer) in enumerate(zip(paths, answers, strict=True)):
        engine.submit(EngineRequest(f"r{number}", OneRecording(audio=path), LabelOptions()), answer)
    for path, answer in zip(paths, answers, strict=True):
        done = answer.done()
        assert done.units == 1
        (together,) = done.results or []
        assert scores(list(together)) == pytest.approx(scores(classify(engine, path)), abs=1e-5)


def test_a_long_recording_is_metered_in_seconds_and_judged_by_all_of_its_windows(
    tmp_path: Path,
) -> None:
    from tests.unit.tasks.tiny_audio import save_tiny, tone

    engine = load(save_tiny("WhisperForAudioClassification", tmp_path / "model"))
    try:
        answer = Answer()
        audio = io.BytesIO(tone(440, 30.2, 4_000))
        engine.submit(EngineRequest("r", OneRecording(audio=audio), LabelOptions()), answer)
        done = answer.done()
    finally:
        engine.close()
    assert done.units == 31
    (labels,) = done.results or []
    assert sum(each["score"] for each in labels) == pytest.approx(1, abs=1e-5)


def test_top_k_shortens_the_answer(engine: Any) -> None:
    from tests.unit.tasks.tiny_audio import tone

    data = tone(440, 1)
    assert classify(engine, io.BytesIO(data), top_k=1) == classify(engine, io.BytesIO(data))[:1]


def test_what_is_no_recording_is_refused_and_the_engine_goes_on(engine: Any) -> None:
    from tests.unit.tasks.tiny_audio import tone

    for content in (b"", b"not a recording", tone(440, 1)[:30]):
        with pytest.raises(RequestRefused, match="The recording"):
            classify(engine, io.BytesIO(content))
    assert len(classify(engine, io.BytesIO(tone(440, 1)))) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"feature_extractor_type": "ClapFeatureExtractor"}, "names the extractor"),
        ({"feature_extractor_type": None}, "names the extractor"),
        ({"auto_map": {"AutoFeatureExtractor": "code.Extractor"}}, "names the extractor"),
        ({"sampling_rate": 10_000_000}, "sampling_rate 10000000"),
        ({"sampling_rate": "fast"}, "sampling_rate"),
        ({"feature_size": 10**9}, "feature_size"),
    ],
)
def test_an_extractor_that_is_not_plain_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    from tests.unit.tasks.tiny_audio import RAW
    from workers.engines.architectures import UnsupportedModel
    from workers.engines.audio_features import AudioFeatures

    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**RAW, **change}))
    with pytest.raises(UnsupportedModel, match=reason):
        AudioFeatures(tmp_path)


def test_an_extractor_of_another_model_is_refused(tmp_path: Path) -> None:
    from tests.unit.tasks.tiny_audio import RAW, save_tiny
    from workers.engines.architectures import UnsupportedModel

    folder = save_tiny("WhisperForAudioClassification", tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps(RAW))
    with pytest.raises(UnsupportedModel, match="does not fit the model"):
        load(folder)


def as_json(**fields: Any) -> Body:
    return Body("application/json", json.dumps(fields).encode())


SOUND = base64.b64decode(TASK.sample["inputs"])


@pytest.mark.parametrize(
    "body", [Body("audio/wav", SOUND), Body("application/json", SOUND), as_json(**TASK.sample)]
)
def test_a_recording_is_the_whole_body_or_base64(body: Body) -> None:
    plan = PLAN(body, "req_1", "words")
    assert isinstance(plan.inputs, OneRecording)
    assert (plan.model, plan.inputs.audio.data, plan.tokens) == ("words", SOUND, 0)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (Body("audio/wav", b""), "empty"),
        (Body("application/json", b"{"), "JSON"),
        (as_json(), "inputs"),
        (as_json(inputs="?"), "base64"),
        (as_json(inputs="https://example.com/a.wav"), "base64"),
        (as_json(inputs="aaaa", parameters={"top_k": 0}), "top_k"),
        (as_json(inputs="aaaa", parameters={"function_to_apply": "none"}), "function_to_apply"),
        (as_json(inputs="aaaa", more=1), "more"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_the_reason(body: Body, reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        PLAN(body, "req_1", "words")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["inputs", "parameters", "top_k", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused_in_words(data: bytes) -> None:
    for content_type in ("application/json", "audio/wav", "application/octet-stream"):
        with suppress(RequestInvalid):
            assert PLAN(Body(content_type, data), "req_1", "words").model == "words"


@pytest.mark.parametrize("top_k", [None, 1])
def test_the_hugging_face_client_works_unmodified(
    top_k: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import InferenceClient

    # Trainers switch it on in their process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    answer = EngineAnswer("stop", 0, 0, results=[[{"label": "yes", "score": 0.9}]])
    with served(TASK.endpoints[0], answer) as (url, plans):
        client = InferenceClient(model=f"{url}{TASK.endpoint}/words", token="key")
        (element,) = client.audio_classification(SOUND, top_k=top_k)
    assert (element.label, element.score) == ("yes", 0.9)
    (plan,) = plans
    assert isinstance(plan.inputs, OneRecording)
    assert (plan.model, plan.inputs.audio.data) == ("words", SOUND)
    assert plan.options == LabelOptions(top_k=top_k or 5)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(
    base: Path,
    media: Path | None,
    folder: Path,
    progress: Recorder,
    rows: list[Any],
    **settings: Any,
) -> Any:
    from tasks.audio_classification.fine_tune import train as run

    return run(
        TrainingRequest(
            task=TASK.name,
            method="full",
            base=base,
            train_file=write(folder / "train.jsonl", rows),
            output=folder / "output",
            checkpoints=folder / "checkpoints",
            hyperparameters=settings,
            media=media,
        ),
        progress,
    )


@pytest.mark.parametrize(
    "architecture", ["WhisperForAudioClassification", "Wav2Vec2ForSequenceClassification"]
)
def test_training_learns_and_is_measured_with_the_runner_that_serves(
    tones: tuple[Path, list[dict[str, str]]],
    tmp_path: Path,
    progress: Recorder,
    architecture: str,
) -> None:
    from tasks.audio_classification.baselines import NAME
    from tests.unit.tasks.tiny_audio import save_tiny
    from workers.trainers.evaluation import evaluate

    media, rows = tones
    train_rows, test_rows = rows[::2], rows[1::2]
    result = train(
        save_tiny(architecture, tmp_path / "base"),
        media,
        tmp_path,
        progress,
        [*train_rows, train_rows[0]],
        epochs=1,
        learning_rate=1e-3,
        batch_size=8,
        shift=0.1,
    )
    assert result.parameters["rows_left_out"] == 1
    found = evaluate(
        EvaluationRequest(
            evaluation_plan(TASK),
            tmp_path / "output",
            None,
            write(tmp_path / "test.jsonl", test_rows),
            tmp_path / "train.jsonl",
            media,
        ),
        progress,
    )
    assert found.baseline_name == NAME
    assert found.baseline["accuracy"] > 0.8
    assert found.sample_size == len(test_rows)
    sample = found.details["samples"][0]
    assert (sample["input_audio"], sample["expected"]) == (test_rows[0]["audio"], "low")
    assert sample["input"].startswith("Recording of 0.")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no rows"),
        ([{"audio": "a" * 64}], "Line 1"),
        ([{"audio": f"{n:064x}", "label": "one"} for n in range(9)], "1 labels"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(
    tmp_path: Path, progress: Recorder, rows: list[Any], reason: str
) -> None:
    with pytest.raises(BadMaterial, match=reason):
        train(tmp_path, tmp_path, tmp_path, progress, rows)


def test_a_damaged_recording_is_named(
    tones: tuple[Path, list[dict[str, str]]], tmp_path: Path, progress: Recorder
) -> None:
    from tests.unit.tasks.tiny_audio import save_tiny

    media, rows = tones
    bad = "f" * 64
    (media / bad).write_bytes(b"damaged")
    base = save_tiny("WhisperForAudioClassification", tmp_path / "base")
    with pytest.raises(BadMaterial, match=bad):
        train(
            base, media, tmp_path, progress, [*rows[:70], {"audio": bad, "label": "low"}], epochs=1
        )
