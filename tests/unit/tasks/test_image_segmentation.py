"""A segmenter: trained on bright squares, served from any allowed architecture, measured."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.requests import Body, RequestInvalid
from tasks.image_segmentation.schema import SegmentationOptions
from tests.thoroughness import first_and_last
from tests.unit.tasks.repeating import differences
from tests.unit.tasks.serving import served
from tests.unit.workers.recording import Answer, Recorder, asked
from workers.engines.protocol import RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import BadMaterial, EvaluationRequest, TrainingRequest

pytestmark = pytest.mark.torch

TASK = get_task("image-segmentation")
READ = TASK.endpoints[0].read
IMAGE = base64.b64decode(TASK.sample["inputs"])


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


def segment(engine: Any, path: Any, **options: Any) -> list[dict[str, Any]]:
    answer = Answer()
    engine.submit(asked(TASK.name, "r", {"image": path}, options), answer)
    (found,) = answer.done().results or []
    return list(found)


def decoded(mask: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(mask))))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.unit.tasks.tiny_detectors import save_segmenter

    folder = tmp_path_factory.mktemp("tiny")
    engine = load(save_segmenter("SegformerForSemanticSegmentation", folder))
    yield engine
    engine.close()


def image_file(folder: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path = folder / f"{size[0]}-{size[1]}.png"
    Image.new("RGB", size, "teal").save(path)
    return path


@pytest.mark.parametrize("architecture", first_and_last(TASK.architectures))
def test_every_allowed_architecture_gives_each_pixel_one_label(
    architecture: str, tmp_path: Path
) -> None:
    from tests.unit.tasks.tiny_detectors import save_segmenter

    engine = load(save_segmenter(architecture, tmp_path / "model"))
    try:
        found = segment(engine, image_file(tmp_path, (80, 30)))
    finally:
        engine.close()
    masks = np.stack([decoded(each["mask"]) for each in found])
    assert masks.shape[1:] == (30, 80)
    assert set(np.unique(masks)) <= {0, 255}
    assert ((masks > 0).sum(0) == 1).all()
    assert all(0 <= each["score"] <= 1 for each in found)


def test_the_threshold_leaves_out_doubtful_segments(engine: Any, tmp_path: Path) -> None:
    path = image_file(tmp_path)
    assert segment(engine, path)
    assert segment(engine, path, threshold=1.0) == []


def test_an_image_that_is_too_large_is_refused_and_the_engine_goes_on(
    engine: Any, tmp_path: Path
) -> None:
    with pytest.raises(RequestRefused, match="at most 12,000,000"):
        segment(engine, image_file(tmp_path, (4_000, 3_001)))
    (tmp_path / "bad").write_bytes(b"GIF89a")
    with pytest.raises(RequestRefused, match="The image"):
        segment(engine, tmp_path / "bad")
    assert segment(engine, image_file(tmp_path))


def as_json(**fields: Any) -> Body:
    return Body("application/json", json.dumps(fields).encode())


def test_an_image_is_the_whole_body_or_is_in_json() -> None:
    plan = READ(Body("image/png", IMAGE), "req_1", "cutter")
    assert (plan.model, plan.inputs.to_wire()["image"].data, plan.units) == ("cutter", IMAGE, 1)
    given = as_json(inputs=TASK.sample["inputs"], parameters={"threshold": 0.9})
    assert READ(given, "req_1", "cutter").options == SegmentationOptions(threshold=0.9)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Body("image/png", b""), "empty"),
        (as_json(), "inputs"),
        (as_json(inputs="aaaa", parameters={"threshold": -1}), "threshold"),
        (as_json(inputs="aaaa", parameters={"subtask": "panoptic"}), "subtask"),
        (as_json(inputs="aaaa", parameters={"mask_threshold": 0.5}), "mask_threshold"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_the_reason(given: Body, reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        READ(given, "req_1", "cutter")


def test_the_hugging_face_client_works_unmodified(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    # Trainers switch it on in their process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = [{"label": "bag", "score": 0.9, "mask": TASK.sample["inputs"]}]
    with served(TASK.endpoints[0], EngineAnswer("stop", 0, 0, results=[found])) as (url, plans):
        client = InferenceClient(model=f"{url}{TASK.endpoint}/cutter", token="key")
        (element,) = client.image_segmentation(IMAGE, threshold=0.5, subtask="semantic")
        client.image_segmentation(IMAGE)
    assert (element.label, element.score) == ("bag", 0.9)
    assert element.mask.size == (32, 32)
    assert [plan.options for plan in plans] == [
        SegmentationOptions(threshold=0.5),
        SegmentationOptions(),
    ]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def request(base: Path, media: Path, folder: Path, rows: list[Any], **wish: Any) -> Any:
    return TrainingRequest(
        task=TASK.name,
        method="full",
        base=base,
        train_file=write(folder / "train.jsonl", rows),
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        hyperparameters={"epochs": 8, "learning_rate": 5e-3, **wish},
        media=media,
    )


def test_it_is_trained_served_and_measured(tmp_path: Path, progress: Recorder) -> None:
    from tasks.image_segmentation.baselines import OTSU
    from tasks.image_segmentation.fine_tune import train
    from tests.unit.tasks.tiny_detectors import save_masks, save_segmenter
    from workers.trainers.evaluation import evaluate

    media = tmp_path / "media"
    media.mkdir()
    rows = save_masks(media, 120)
    train_rows, test_rows = rows[:90], rows[90:]
    base = save_segmenter("SegformerForSemanticSegmentation", tmp_path / "base")
    result = train(request(base, media, tmp_path, [*train_rows, train_rows[0]]), progress)
    assert (result.parameters["rows"], result.parameters["rows_left_out"]) == (91, 1)
    assert result.metrics["validation_mean_iou"] > 0.3
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
    assert len(found.reference) == 16
    assert differences(TASK, tmp_path / "output", found.reference, media) == []
    names = {each["name"]: each["metrics"]["mean_iou"] for each in found.details["baselines"]}
    # Bright squares on black: what stands out is found, and half of its labels are guessed right.
    assert found.baseline_name == OTSU
    assert 0.3 < names[OTSU] < 0.8
    assert found.metrics["mean_iou"] > names[OTSU]
    interval = found.intervals["metrics"]["mean_iou"]
    assert interval["low"] <= found.metrics["mean_iou"] <= interval["high"]
    assert set(found.metrics) == {
        "mean_iou",
        "pixel_accuracy",
        "iou_background",
        "iou_light",
        "iou_red",
    }
    sample = found.details["samples"][0]
    assert sample["expected_image"].startswith("data:image/png;base64,")
    assert sample["expected"] in {"light", "red", "light, red"}


def test_masks_are_compared_over_all_pixels_and_unlabeled_ones_are_left_out() -> None:
    from tasks.image_segmentation.measures import pixel_counts, scores

    truth = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    found = np.array([[0, 1, 1, 0]], dtype=np.uint8)
    assert scores(pixel_counts(truth, found, 3), ["a", "b", "c"]) == pytest.approx(
        {"mean_iou": 0.5, "pixel_accuracy": 2 / 3, "iou_a": 0.5, "iou_b": 0.5}
    )
    nothing = np.full_like(truth, 255)
    assert scores(pixel_counts(truth, nothing, 3), ["a", "b", "c"])["mean_iou"] == 0


def mask_row(name: str, categories: list[str]) -> dict[str, Any]:
    return {"image": name, "mask": name, "categories": categories}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no rows"),
        ([{"image": "a" * 64}], "Line 1"),
        ([mask_row(f"{n:064x}", ["one"]) for n in range(9)], "one category"),
        ([mask_row("a" * 64, ["a", "b"])], "1 different images"),
        ([mask_row(f"{n:064x}", [f"{n}-{k}" for k in range(200)]) for n in range(9)], "1800"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(
    tmp_path: Path, progress: Recorder, rows: list[Any], reason: str
) -> None:
    from tasks.image_segmentation.fine_tune import train

    with pytest.raises(BadMaterial, match=reason):
        train(request(tmp_path, tmp_path, tmp_path, rows), progress)


def test_a_model_of_queries_is_served_but_not_trained(tmp_path: Path, progress: Recorder) -> None:
    from tasks.image_segmentation.fine_tune import train
    from tests.unit.tasks.tiny_detectors import save_masks, save_segmenter

    rows = save_masks(tmp_path, 9)
    base = save_segmenter("MaskFormerForInstanceSegmentation", tmp_path / "base")
    with pytest.raises(BadMaterial, match="can be served, but not trained"):
        train(request(base, tmp_path, tmp_path, rows), progress)
