"""An object detector: trained on bright squares, served from any allowed architecture, measured."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.requests import Body, RequestInvalid
from tasks.object_detection.schema import DetectionOptions
from tests.thoroughness import first_and_last
from tests.unit.tasks.serving import served
from tests.unit.workers.recording import Answer, Recorder, asked
from workers.engines.protocol import RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import BadMaterial, EvaluationRequest, TrainingRequest

pytestmark = pytest.mark.torch

TASK = get_task("object-detection")
READ = TASK.endpoints[0].read
IMAGE = base64.b64decode(TASK.sample["inputs"])


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


def detect(engine: Any, path: Any, **options: Any) -> list[dict[str, Any]]:
    answer = Answer()
    engine.submit(asked(TASK.name, "r", {"image": path}, options), answer)
    (found,) = answer.done().results or []
    return list(found)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.unit.tasks.tiny_detectors import save_detector

    engine = load(save_detector("YolosForObjectDetection", tmp_path_factory.mktemp("tiny")))
    yield engine
    engine.close()


def image_file(folder: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path = folder / f"{size[0]}-{size[1]}.png"
    Image.new("RGB", size, "teal").save(path)
    return path


@pytest.mark.parametrize("architecture", first_and_last(TASK.architectures))
def test_every_allowed_architecture_serves(architecture: str, tmp_path: Path) -> None:
    from tests.unit.tasks.tiny_detectors import LABELS, save_detector

    engine = load(save_detector(architecture, tmp_path / "model"))
    try:
        found = detect(engine, image_file(tmp_path, (80, 30)))
    finally:
        engine.close()
    assert found
    assert {each["label"] for each in found} <= set(LABELS)
    assert [each["score"] for each in found] == sorted(each["score"] for each in found)[::-1]
    for each in found:
        box = each["box"]
        assert 0 <= box["xmin"] <= box["xmax"] <= 80
        assert 0 <= box["ymin"] <= box["ymax"] <= 30


def test_a_backbone_of_another_place_is_refused(tmp_path: Path) -> None:
    from tests.unit.tasks.tiny_detectors import save_detector
    from workers.engines.architectures import UnsupportedModel, architecture_of

    path = save_detector("DetrForObjectDetection", tmp_path) / "config.json"
    config = json.loads(path.read_text())
    for named in ("hf_hub:owner/model", "local-dir:/etc", "../model"):
        config["backbone_config"] = {"model_type": "timm_backbone", "backbone": named}
        path.write_text(json.dumps(config))
        with pytest.raises(UnsupportedModel, match="plain name"):
            architecture_of(tmp_path, TASK.architectures)


def test_the_threshold_leaves_out_doubtful_boxes(engine: Any, tmp_path: Path) -> None:
    path = image_file(tmp_path)
    every = detect(engine, path)
    middle = every[len(every) // 2]["score"]
    assert detect(engine, path, threshold=middle) == [
        each for each in every if each["score"] >= middle
    ]
    assert detect(engine, path, threshold=1.0) == []


def test_images_of_other_sizes_wait_for_a_batch_of_their_own(engine: Any, tmp_path: Path) -> None:
    paths = [image_file(tmp_path, (30 + number, 40)) for number in range(12)]
    answers = [Answer() for _ in paths]
    for number, (path, answer) in enumerate(zip(paths, answers, strict=True)):
        engine.submit(asked(TASK.name, f"r{number}", {"image": path}), answer)
    for path, answer in zip(paths, answers, strict=True):
        (together,) = answer.done().results or []
        for one, other in zip(together, detect(engine, path), strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)
            assert one["box"] == pytest.approx(other["box"], abs=1e-2)


def test_what_is_no_image_or_option_is_refused_and_the_engine_goes_on(
    engine: Any, tmp_path: Path
) -> None:
    good = image_file(tmp_path)
    (tmp_path / "bad").write_bytes(good.read_bytes()[:40])
    with pytest.raises(RequestRefused, match="The image"):
        detect(engine, tmp_path / "bad")
    for options in ({"threshold": 2}, {"threshold": "high"}, {"top_k": 1}):
        with pytest.raises(RequestRefused):
            detect(engine, good, **options)
    assert detect(engine, good)


def as_json(**fields: Any) -> Body:
    return Body("application/json", json.dumps(fields).encode())


def test_an_image_is_the_whole_body_or_is_in_json() -> None:
    plan = READ(Body("image/png", IMAGE), "req_1", "finder")
    assert (plan.model, plan.inputs.to_wire()["image"].data, plan.units) == ("finder", IMAGE, 1)
    assert plan.options == DetectionOptions(threshold=0.5)
    assert READ(as_json(**TASK.sample), "req_1", "finder").options == DetectionOptions(
        threshold=0.3
    )
    zero = as_json(inputs=TASK.sample["inputs"], parameters={"threshold": 0})
    assert READ(zero, "req_1", "finder").options == DetectionOptions(threshold=0)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Body("image/png", b""), "empty"),
        (Body("application/json", b"{"), "JSON"),
        (as_json(), "inputs"),
        (as_json(inputs="https://example.com/cat.png"), "base64"),
        (as_json(inputs="aaaa", parameters={"threshold": 1.5}), "threshold"),
        (as_json(inputs="aaaa", parameters={"threshold": float("nan")}), "threshold"),
        (as_json(inputs="aaaa", parameters={"boxes": 3}), "boxes"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_the_reason(given: Body, reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        READ(given, "req_1", "finder")


@pytest.mark.parametrize("threshold", [None, 0.25])
def test_the_hugging_face_client_works_unmodified(
    threshold: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import InferenceClient

    # Trainers switch it on in their process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    box = {"xmin": 1.4, "ymin": 2.0, "xmax": 30.6, "ymax": 40.0}
    answer = EngineAnswer("stop", 0, 0, results=[[{"label": "bag", "score": 0.9, "box": box}]])
    with served(TASK.endpoints[0], answer) as (url, plans):
        client = InferenceClient(model=f"{url}{TASK.endpoint}/finder", token="key")
        (element,) = client.object_detection(IMAGE, threshold=threshold)
    assert (element.label, element.score) == ("bag", 0.9)
    assert (element.box.xmin, element.box.ymin, element.box.xmax, element.box.ymax) == (
        1,
        2,
        31,
        40,
    )
    assert plans[0].options == DetectionOptions(threshold=threshold or 0.5)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def request(base: Path, media: Path | None, folder: Path, rows: list[Any], **wish: Any) -> Any:
    return TrainingRequest(
        task=TASK.name,
        method="full",
        base=base,
        train_file=write(folder / "train.jsonl", rows),
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        hyperparameters={"epochs": 5, "learning_rate": 2e-3, **wish},
        media=media,
    )


def test_it_is_trained_served_and_measured(tmp_path: Path, progress: Recorder) -> None:
    from tasks.object_detection.baselines import COMPONENTS, CONSTANT
    from tasks.object_detection.fine_tune import train
    from tests.unit.tasks.tiny_detectors import save_detector, save_scenes
    from workers.trainers.evaluation import evaluate

    media = tmp_path / "media"
    media.mkdir()
    rows = save_scenes(media, 90)
    base = save_detector("RTDetrForObjectDetection", tmp_path / "base")
    train_rows, test_rows = rows[:60], rows[60:]
    result = train(request(base, media, tmp_path, [*train_rows, train_rows[0]]), progress)
    assert (result.parameters["rows"], result.parameters["rows_left_out"]) == (61, 1)
    assert set(result.metrics) == {"validation_loss", "validation_map", "validation_map_50"}
    output = tmp_path / "output"
    assert {path.name for path in output.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    found = evaluate(
        EvaluationRequest(
            evaluation_plan(TASK),
            output,
            None,
            write(tmp_path / "test.jsonl", test_rows),
            tmp_path / "train.jsonl",
            media,
        ),
        progress,
    )
    assert found.sample_size == 30
    assert 0 <= found.metrics["map"] <= found.metrics["map_50"] <= 1
    names = {each["name"]: each["metrics"]["map"] for each in found.details["baselines"]}
    assert set(names) == {COMPONENTS, CONSTANT}
    # Bright squares on black: what stands out is found; its label is guessed.
    assert found.baseline_name == COMPONENTS
    assert 0.2 < names[COMPONENTS] < 0.8
    assert names[CONSTANT] < 0.1
    sample = found.details["samples"][0]
    assert sample["expected_image"].startswith("data:image/png;base64,")
    assert len(sample["output_image"]) < 40_000
    assert {part["name"] for part in found.slices} == {"1 object", "2 or 3 objects"}


def test_perfect_boxes_have_a_precision_of_one_and_unknown_labels_of_none() -> None:
    from tasks.object_detection.measures import average_precision

    truth = [{"bbox": [[0, 0, 10, 10], [20, 20, 5, 8]], "categories": ["a", "b"]}]

    def answer(label: str, *box: float) -> dict[str, Any]:
        return {
            "label": label,
            "score": 0.9,
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
        }

    right: Any = [[answer("a", 0, 0, 10, 10), answer("b", 20, 20, 25, 28)]]
    assert average_precision(truth, right, ["a", "b"])["map"] == pytest.approx(1)
    wrong: Any = [[answer("c", 0, 0, 10, 10)]]
    found = average_precision(truth, wrong, ["a", "b", "c"])
    assert (found["map"], found["ap_a"]) == (0, 0)
    assert average_precision(truth, [[]], ["a", "b"])["recall"] == 0


def boxes_row(name: str, *labels: str) -> dict[str, Any]:
    boxes = [[0, 0, 4, 4]] * len(labels)
    return {"image": name, "objects": {"bbox": boxes, "categories": list(labels)}}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no rows"),
        ([{"image": "a" * 64}], "Line 1"),
        ([boxes_row(f"{n:064x}") for n in range(9)], "0 labels"),
        ([boxes_row(f"{n:064x}", "a", *(["b"] if not n else [])) for n in range(9)], "'b' has 1"),
        ([boxes_row("a" * 64, "a", "a", "a", "a")], "1 different images"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(
    tmp_path: Path, progress: Recorder, rows: list[Any], reason: str
) -> None:
    from tasks.object_detection.fine_tune import train

    with pytest.raises(BadMaterial, match=reason):
        train(request(tmp_path, tmp_path, tmp_path, rows), progress)
