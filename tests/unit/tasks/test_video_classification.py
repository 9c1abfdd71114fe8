"""A video classifier: trained on moving squares, served, measured beside what sees no motion."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.inputs import MediaInput
from registry.catalog.requests import Body, RequestInvalid
from registry.media.limits import MediaLimits
from registry.media.video_process import spread_numbers
from tasks.video_classification.schema import LabelOptions, OneVideo
from tests.unit.registry.media_files import container, decoded
from tests.unit.workers.recording import Answer, Recorder
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    TrainingRequest,
)

TASK = get_task("video-classification")
READ = TASK.endpoints[0].read
SIDE, FRAMES = 16, 4
SAMPLE = base64.b64decode(TASK.sample["inputs"])


def video(step: int, *, start: int = 6, frames: int = FRAMES, form: str = "GIF") -> bytes:
    """A bright square that moves by `step` pixels a frame."""
    pictures = []
    for number in range(frames):
        field = np.full((SIDE, SIDE), 20, np.uint8)
        at = min(max(start + step * number, 0), SIDE - 5)
        field[6:11, at : at + 5] = 220
        # So that no encoder leaves out a frame in which nothing moves.
        field[0, number % SIDE] = 90
        pictures.append(Image.fromarray(field))
    stream = io.BytesIO()
    pictures[0].save(stream, form, save_all=True, append_images=pictures[1:], duration=100)
    return stream.getvalue()


def test_the_sample_is_a_video() -> None:
    found = decoded(SAMPLE, MediaLimits(), kind="video")
    assert (found.frames, found.width) == (4, 32)


def test_a_file_and_json_around_it_make_the_same_request() -> None:
    raw = READ(Body("image/gif", SAMPLE), "req_1", "watcher")
    wrapped = READ(Body("application/json", json.dumps(TASK.sample).encode()), "req_1", "watcher")
    for plan, top_k in ((raw, 5), (wrapped, 3)):
        assert plan.model == "watcher"
        assert isinstance(plan.inputs, OneVideo)
        sent = plan.inputs.video
        assert isinstance(sent, MediaInput)
        assert (sent.kind, sent.data, sent.param) == ("video", SAMPLE, "inputs")
        assert plan.options == LabelOptions(top_k=top_k)


def test_an_answer_is_a_list_of_labels() -> None:
    plan = READ(Body("image/gif", SAMPLE), "req_1", "watcher")
    labels = [{"label": "left", "score": 0.75}, {"label": "right", "score": 0.25}]
    assert plan.renderer.whole(EngineAnswer("stop", 0, 0, results=[labels])) == labels


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "send the video file"),
        (b'{"inputs": "?"}', "base64"),
        (b'{"inputs": ""}', "inputs"),
        (b'{"inputs": "AAAA", "parameters": {"top_k": 0}}', "top_k"),
        (b'{"inputs": "AAAA", "model": "x"}', "Unrecognized"),
    ],
)
def test_a_request_without_a_video_is_refused_in_words(body: bytes, said: str) -> None:
    with pytest.raises(RequestInvalid, match=said):
        READ(Body("application/json", body), "req_1", "watcher")


@given(st.binary(max_size=200), st.sampled_from(["application/json", "image/gif", "video/mp4"]))
def test_any_body_is_read_or_refused_in_words(data: bytes, kind: str) -> None:
    try:
        plan = READ(Body(kind, data), "req_1", "watcher")
    except RequestInvalid:
        return
    assert plan.units == 1


# ---- with models ----


def save_tiny(folder: Path, **changes: Any) -> Path:
    import torch
    import transformers

    torch.manual_seed(5)
    config = transformers.VideoMAEConfig(
        **{
            "image_size": SIDE,
            "patch_size": 8,
            "num_frames": FRAMES,
            "tubelet_size": 2,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "id2label": {0: "left", 1: "right", 2: "still"},
            **changes,
        }
    )
    transformers.VideoMAEForVideoClassification(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


def classify(engine: Any, data: bytes, **options: Any) -> Any:
    answer = Answer()
    request = EngineRequest("r", OneVideo(video=io.BytesIO(data)), LabelOptions(**options))
    engine.submit(request, answer)
    return answer.done()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    engine = load(save_tiny(tmp_path_factory.mktemp("tiny")))
    yield engine
    engine.close()


@pytest.mark.torch
@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_a_video_of_every_format_has_its_labels_ranked(engine: Any, form: str) -> None:
    done = classify(engine, video(1, form=form))
    (labels,) = done.results
    assert sorted(each["label"] for each in labels) == ["left", "right", "still"]
    assert sum(each["score"] for each in labels) == pytest.approx(1, abs=1e-5)
    assert labels == sorted(labels, key=lambda each: -each["score"])
    assert done.units == 1
    assert classify(engine, video(1, form=form), top_k=1).results[0] == labels[:1]


@pytest.mark.torch
def test_units_are_the_megapixels_of_all_frames(engine: Any) -> None:
    pictures = [Image.new("L", (1_000, 500), 40 * number) for number in range(6)]
    stream = io.BytesIO()
    pictures[0].save(stream, "WEBP", save_all=True, append_images=pictures[1:], duration=100)
    assert classify(engine, stream.getvalue()).units == 3


@pytest.mark.torch
def test_frames_are_spread_from_the_first_to_the_last() -> None:
    from workers.engines.videos import read_clip

    assert spread_numbers(9, 3) == [0, 4, 8]
    assert spread_numbers(2, 4) == [0, 0, 1, 1]
    frames = read_clip(io.BytesIO(video(1, frames=10, form="PNG")), 2).frames
    assert [frame.getpixel((number, 0)) for frame, number in zip(frames, (0, 9), strict=True)] == [
        (90, 90, 90),
        (90, 90, 90),
    ]


@pytest.mark.torch
def test_containers_are_watched_like_animated_images(engine: Any) -> None:
    data = container(frames=8, size=(1_000, 500))
    assert classify(engine, data).units == 4
    with pytest.raises(RequestRefused, match="truncated or damaged WebM"):
        classify(engine, data[: len(data) // 2])
    assert len(classify(engine, container("mp4", "vp09")).results[0]) == 3


@pytest.mark.torch
def test_what_is_no_video_is_refused_and_the_engine_goes_on(engine: Any) -> None:
    good = video(1)
    still = io.BytesIO()
    Image.new("RGB", (16, 16)).save(still, "PNG")
    for data in (b"", b"text", good[: len(good) // 2], still.getvalue()):
        with pytest.raises(RequestRefused, match=r"video|frames"):
            classify(engine, data)
    assert len(classify(engine, good).results[0]) == 3


@pytest.mark.torch
@pytest.mark.parametrize(
    "change",
    [
        {"image_processor_type": "ViTImageProcessor"},
        {"size": {"shortest_edge": 100_000}},
        {"auto_map": {"AutoImageProcessor": "code.Mine"}},
    ],
)
def test_other_processors_are_unsupported(change: dict[str, Any], tmp_path: Path) -> None:
    from workers.engines.architectures import UnsupportedModel

    folder = save_tiny(tmp_path)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UnsupportedModel):
        load(folder)


def rows_of(folder: Path, count: int, seed: int) -> list[dict[str, str]]:
    """Videos of squares that start anywhere and move left, right or not at all."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        label, step = (("left", -2), ("right", 2), ("still", 0))[number % 3]
        start = 5 - step * 3 // 2 + int(generator.integers(-2, 3))
        data = video(step, start=start) + bytes(generator.integers(0, 256, 4, dtype=np.uint8))
        name = hashlib.sha256(data).hexdigest()
        (folder / name).write_bytes(data)
        rows.append({"video": name, "label": label})
    return rows


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def training(folder: Path, rows: list[dict[str, str]], **settings: Any) -> TrainingRequest:
    return TrainingRequest(
        task=TASK.name,
        method="full",
        base=save_tiny(folder / "base"),
        train_file=write_rows(folder / "train.jsonl", rows),
        output=folder / "out",
        checkpoints=folder / "checkpoints",
        media=folder / "media",
        hyperparameters=settings,
    )


@pytest.mark.torch
def test_training_learns_motion_and_measuring_names_what_sees_none(tmp_path: Path) -> None:
    from tasks.video_classification.fine_tune import train
    from workers.trainers.evaluation import evaluate

    recorder = Recorder()
    request = training(
        tmp_path,
        rows_of(tmp_path / "media", 90, 1),
        epochs=20,
        learning_rate=4e-3,
        batch_size=16,
    )
    result = train(request, recorder)
    best = max(
        values["validation_macro_f1"]
        for _, _, values in recorder.points
        if "validation_macro_f1" in values
    )
    assert result.metrics["validation_macro_f1"] == pytest.approx(best)
    found = evaluate(
        EvaluationRequest(
            plan=evaluation_plan(TASK),
            version=request.output,
            base=None,
            data_file=write_rows(tmp_path / "test.jsonl", rows_of(tmp_path / "media", 45, 2)),
            train_file=request.train_file,
            media=tmp_path / "media",
        ),
        recorder,
    )
    assert found.metrics["accuracy"] > 0.5
    names = [each["name"] for each in found.details["baselines"]]
    assert names[:2] == ["8 frames + logistic regression", "Middle frame + logistic regression"]
    assert found.details["samples"][0]["input_image"].startswith("data:image/png;base64,")


@pytest.mark.torch
def test_a_canceled_training_stops(tmp_path: Path) -> None:
    from tasks.video_classification.fine_tune import train

    request = training(tmp_path, rows_of(tmp_path / "media", 30, 1), epochs=1)
    with pytest.raises(Canceled):
        train(request, Recorder(stop_at=0))


@pytest.mark.torch
def test_training_without_its_videos_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    from tasks.video_classification.fine_tune import train

    request = training(tmp_path, rows_of(tmp_path / "media", 30, 1), epochs=1)
    with pytest.raises(BadMaterial, match="videos are missing"):
        train(replace(request, media=None), Recorder())
