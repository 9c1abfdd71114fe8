"""An image classifier: trained on digits, served from any allowed architecture, measured."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.file_endpoints import LabelOptions
from registry.catalog.requests import Body, RequestInvalid
from registry.manifests import build_manifest
from tests.thoroughness import first_and_last
from tests.unit.tasks.serving import served
from tests.unit.workers.recording import Answer, Recorder, asked
from workers.engines.protocol import RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    TrainingRequest,
    TrainingResult,
)

pytestmark = pytest.mark.torch

TASK = get_task("image-classification")
READ = TASK.endpoints[0].read


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


def classify(engine: Any, path: Any, **options: Any) -> list[dict[str, Any]]:
    answer = Answer()
    engine.submit(asked(TASK.name, "r", {"image": path}, options), answer)
    (labels,) = answer.done().results or []
    return list(labels)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.unit.tasks.tiny_images import save_tiny

    engine = load(save_tiny("ResNetForImageClassification", tmp_path_factory.mktemp("tiny")))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    from tests.unit.tasks.tiny_images import save_digits

    folder = tmp_path_factory.mktemp("media")
    return folder, save_digits(folder, 1_000)


def image_file(folder: Path, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
    path = folder / f"{size[0]}-{size[1]}-{mode}.png"
    Image.new(mode, size, 3).save(path)
    return path


@pytest.mark.parametrize("architecture", first_and_last(TASK.architectures))
def test_every_allowed_architecture_serves(architecture: str, tmp_path: Path) -> None:
    from tests.unit.tasks.tiny_images import save_tiny

    engine = load(save_tiny(architecture, tmp_path / "model"))
    try:
        labels = classify(engine, image_file(tmp_path))
    finally:
        engine.close()
    assert sorted(each["label"] for each in labels) == ["a", "b", "c"]
    assert sum(each["score"] for each in labels) == pytest.approx(1, abs=1e-5)
    assert labels == sorted(labels, key=lambda each: -each["score"])


def test_an_image_has_the_same_scores_alone_and_in_a_batch(
    engine: Any, digits: tuple[Path, list[dict[str, str]]]
) -> None:
    folder, rows = digits
    paths = [folder / row["image"] for row in rows[:40]]
    answers = [Answer() for _ in paths]
    for number, (path, answer) in enumerate(zip(paths, answers, strict=True)):
        engine.submit(asked(TASK.name, f"r{number}", {"image": path}), answer)
    for path, answer in zip(paths, answers, strict=True):
        done = answer.done()
        assert done.units == 1
        (together,) = done.results or []
        alone = classify(engine, path)
        assert {each["label"]: each["score"] for each in together} == pytest.approx(
            {each["label"]: each["score"] for each in alone}, abs=1e-5
        )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_images_of_every_mode_are_read(engine: Any, tmp_path: Path, mode: str) -> None:
    assert len(classify(engine, image_file(tmp_path, mode=mode))) == 3


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    from workers.engines.images import read_image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (30, 40)


def test_a_stream_is_read_like_a_file(engine: Any, tmp_path: Path) -> None:
    path = image_file(tmp_path)
    assert classify(engine, io.BytesIO(path.read_bytes())) == classify(engine, path)


def test_top_k_shortens_the_answer(engine: Any, tmp_path: Path) -> None:
    path = image_file(tmp_path)
    assert classify(engine, path, top_k=1) == classify(engine, path)[:1]


def test_what_is_no_image_is_refused_and_the_engine_goes_on(engine: Any, tmp_path: Path) -> None:
    good = image_file(tmp_path)
    data = good.read_bytes()
    bad = {
        "empty": b"",
        "text": b"not an image",
        "truncated": data[: len(data) // 2],
        "header": data[:30],
        "narrow": image_file(tmp_path, (5_000, 2)).read_bytes(),
        "huge": image_file(tmp_path, (10_000, 5_000), "1").read_bytes(),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RequestRefused, match="The image"):
            classify(engine, tmp_path / name)
    for inputs, options in (
        ({"image": "text"}, {}),
        ({}, {}),
        ({"image": good, "other": 1}, {}),
        ({"image": good}, {"temperature": 1}),
        ({"image": good}, {"top_k": 0}),
        ({"image": good}, {"top_k": "many"}),
    ):
        with pytest.raises(RequestRefused):
            engine.submit(asked(TASK.name, "r", inputs, options), Answer())
    assert len(classify(engine, good)) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_processor_type": "Pix2StructImageProcessor"}, "names the processor"),
        ({"auto_map": {"AutoImageProcessor": "code.Processor"}}, "names the processor"),
        ({"size": {"height": 100_000, "width": 100_000}}, "at most 1024"),
        ({"size": {"height": 2_000, "width": 8}}, "at most 1024"),
        ({"pad_size": {"height": 2_000, "width": 8}}, "at most 1024"),
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 32},
                "crop_pct": 0.001,
            },
            "crop_pct",
        ),
        ({"size": "large"}, "cannot be used"),
        ({"image_mean": [1]}, "cannot be used"),
    ],
)
def test_a_processor_that_is_not_plain_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    from tests.unit.tasks.tiny_images import PROCESSOR
    from workers.engines.architectures import UnsupportedModel
    from workers.engines.images import load_image_processor

    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **change}))
    with pytest.raises(UnsupportedModel, match=reason):
        load_image_processor(tmp_path)


def body(data: bytes, content_type: str) -> Body:
    return Body(content_type, data)


def as_json(**fields: Any) -> Body:
    return body(json.dumps(fields).encode(), "application/json")


IMAGE = base64.b64decode(TASK.sample["inputs"])


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream"])
def test_an_image_is_the_whole_body(content_type: str) -> None:
    plan = READ(body(IMAGE, content_type), "req_1", "garments")
    assert plan.model == "garments"
    image = plan.inputs.to_wire()["image"]
    assert (image.kind, image.data, image.param) == ("image", IMAGE, "inputs")
    assert (plan.units, plan.tokens, plan.options) == (1, 0, LabelOptions(top_k=5))


def test_bytes_that_the_hugging_face_client_calls_json_are_an_image() -> None:
    plan = READ(body(IMAGE, "application/json"), "req_1", "garments")
    assert plan.inputs.to_wire()["image"].data == IMAGE


def test_the_sample_is_an_image_in_json() -> None:
    plan = READ(as_json(**TASK.sample), "req_1", "garments")
    assert plan.inputs.to_wire()["image"].data == IMAGE
    assert plan.options == LabelOptions(top_k=3)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (body(b"", "image/png"), "empty"),
        (body(b" \n", "application/json"), "empty"),
        (body(b"{", "application/json"), "JSON"),
        (body(b'["a"]', "application/json"), "JSON object"),
        (as_json(), "inputs"),
        (as_json(inputs="?"), "base64"),
        (as_json(inputs=""), "inputs"),
        (as_json(inputs="https://example.com/cat.png"), "base64"),
        (as_json(inputs="aaaa", parameters={"top_k": 0}), "top_k"),
        (as_json(inputs="aaaa", parameters={"function_to_apply": "none"}), "function_to_apply"),
        (as_json(inputs="aaaa", more=1), "more"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_the_reason(given: Body, reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        READ(given, "req_1", "garments")


@pytest.mark.parametrize("top_k", [None, 1])
def test_the_hugging_face_client_works_unmodified(
    top_k: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import InferenceClient

    # Trainers switch it on in their process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    answer = EngineAnswer("stop", 0, 0, results=[[{"label": "Shirt", "score": 0.9}]])
    with served(TASK.endpoints[0], answer) as (url, plans):
        client = InferenceClient(model=f"{url}{TASK.endpoint}/garments", token="key")
        (element,) = client.image_classification(IMAGE, top_k=top_k)
    assert (element.label, element.score) == ("Shirt", 0.9)
    (plan,) = plans
    assert (plan.model, plan.inputs.to_wire()["image"].data) == ("garments", IMAGE)
    assert plan.options == LabelOptions(top_k=top_k or 5)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(
    base: Path,
    media: Path,
    folder: Path,
    progress: Recorder,
    rows: list[Any],
    resume_from: Path | None = None,
    **wish: Any,
) -> TrainingResult:
    from tasks.image_classification.fine_tune import train as run

    request = TrainingRequest(
        task=TASK.name,
        method="full",
        base=base,
        train_file=write(folder / "train.jsonl", rows),
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        hyperparameters={"epochs": 2, "learning_rate": 5e-3, "batch_size": 32, **wish},
        resume_from=resume_from,
        media=media,
    )
    return run(request, progress)


def tiny(folder: Path) -> Path:
    from tests.unit.tasks.tiny_images import save_tiny

    return save_tiny("ResNetForImageClassification", folder)


def test_a_paused_run_of_a_vision_transformer_makes_the_same_version(
    digits: tuple[Path, list[dict[str, str]]], tmp_path: Path, progress: Recorder
) -> None:
    from tests.unit.tasks.tiny_images import save_tiny

    media, every = digits
    rows = [row for row in every[:240] if row["label"] in "01"]
    base = save_tiny("ViTForImageClassification", tmp_path / "base")
    for name in ("paused", "whole"):
        (tmp_path / name).mkdir()
    cut = Recorder(stop_at=4)
    with pytest.raises(Canceled):
        train(base, media, tmp_path / "paused", cut, rows, batch_size=8)
    train(base, media, tmp_path / "paused", progress, rows, cut.checkpoints[-1], batch_size=8)
    train(base, media, tmp_path / "whole", progress, rows, batch_size=8)
    digests = {build_manifest(tmp_path / name / "output").digest for name in ("paused", "whole")}
    assert len(digests) == 1


def test_it_is_canceled_resumed_served_and_beats_the_baselines(
    digits: tuple[Path, list[dict[str, str]]], tmp_path: Path, progress: Recorder
) -> None:
    from tasks.image_classification.baselines import PIXELS
    from workers.trainers.evaluation import evaluate

    media, rows = digits
    # Few rows for the linear baseline, so that it is beaten within seconds.
    train_rows, test_rows = rows[:700], rows[700:]
    base = tiny(tmp_path / "base")
    cut = Recorder(stop_at=24)
    with pytest.raises(Canceled):
        train(base, media, tmp_path, cut, train_rows, epochs=6)
    assert not (tmp_path / "output").exists()
    result = train(
        base,
        media,
        tmp_path,
        progress,
        [*train_rows, train_rows[0]],
        cut.checkpoints[-1],
        epochs=6,
    )
    assert any("Resuming from checkpoint-" in line for line in progress.lines)
    assert any("1 repeated images" in line for line in progress.warnings)
    assert [result.parameters[name] for name in ("rows", "rows_left_out")] == [701, 1]
    output = tmp_path / "output"
    assert sorted(path.name for path in output.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert str(tmp_path) not in (output / "config.json").read_text()
    request = EvaluationRequest(
        evaluation_plan(TASK),
        output,
        None,
        write(tmp_path / "test.jsonl", test_rows),
        tmp_path / "train.jsonl",
        media,
    )
    found = evaluate(request, progress)
    assert found.baseline_name == PIXELS
    constant = found.details["baselines"][1]
    assert found.sample_size == 300
    assert found.metrics["accuracy"] > constant["metrics"]["accuracy"] + 0.3
    assert found.metrics["accuracy"] == pytest.approx(
        sum(part["value"] * part["n"] for part in found.slices if part["by"] == "label") / 300
    )
    assert found.details["samples"][0]["input_image"].startswith("data:image/png;base64,")
    assert found.details["samples"][0]["expected"] == test_rows[0]["label"]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no rows"),
        ([{"image": "a" * 64}], "Line 1"),
        ([{"image": f"{n:064x}", "label": "one"} for n in range(9)], "1 labels"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(
    tmp_path: Path, progress: Recorder, rows: list[Any], reason: str
) -> None:
    with pytest.raises(BadMaterial, match=reason):
        train(tmp_path, tmp_path, tmp_path, progress, rows)


def test_a_damaged_image_is_named(
    digits: tuple[Path, list[dict[str, str]]], tmp_path: Path, progress: Recorder
) -> None:
    media, rows = digits
    bad = "f" * 64
    (media / bad).write_bytes(b"damaged")
    with pytest.raises(BadMaterial, match=bad):
        train(
            tiny(tmp_path / "base"),
            media,
            tmp_path,
            progress,
            [*rows[:100], {"image": bad, "label": "0"}],
            epochs=1,
        )


def test_images_of_different_sizes_are_measured_by_size(tmp_path: Path) -> None:
    from tasks.image_classification.score import score
    from workers.trainers.evaluation import Outcome, ScoreRequest

    sizes = [(8, 8), (8, 8), (16, 16), (16, 16), (64, 64), (64, 64)]
    rows = [
        {"image": image_file(tmp_path, size), "label": "ab"[number % 2]}
        for number, size in enumerate(sizes)
    ]
    ranked = [{"label": "a", "score": 0.6}, {"label": "b", "score": 0.4}]
    outcomes = [Outcome("", [ranked]) for _ in rows]
    found = score(ScoreRequest(rows, outcomes, None, None, Recorder()))
    # Half of the rows are labeled a, and a is always the answer.
    assert found.metrics["accuracy"] == 0.5
    assert found.metrics["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    parts = [(each["name"], each["n"]) for each in found.slices if each["by"] == "image size"]
    assert parts == [
        ("small, up to 64 pixels", 2),
        ("medium, 65 to 256 pixels", 2),
        ("large, over 256 pixels", 2),
    ]


def test_a_model_of_timm_is_canceled_resumed_and_keeps_the_labels_of_its_data(
    digits: tuple[Path, list[dict[str, str]]], tmp_path: Path, progress: Recorder
) -> None:
    from tests.unit.tasks.tiny_images import save_tiny

    media, rows = digits
    base = save_tiny("timm.mobilenetv3_small_100", tmp_path / "base")
    cut = Recorder(stop_at=9)
    with pytest.raises(Canceled):
        train(base, media, tmp_path, cut, rows[:120], batch_size=16)
    train(base, media, tmp_path, progress, rows[:120], cut.checkpoints[-1], batch_size=16)
    output = tmp_path / "output"
    assert sorted(path.name for path in output.iterdir()) == ["config.json", "model.safetensors"]
    engine = load(output)
    try:
        labels = classify(engine, media / rows[0]["image"])
    finally:
        engine.close()
    assert sorted(each["label"] for each in labels) == [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architecture": "resnet152"}, "'timm.resnet152' is not one of"),
        ({"architecture": "hf-hub:someone/model"}, "is not one of"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "model_args"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "auto_map"),
        ({"pretrained_cfg": {"input_size": [3, 100_000, 100_000]}}, "input size"),
        ({"pretrained_cfg": {"input_size": "large"}}, "input size"),
        ({"pretrained_cfg": {"crop_pct": 0.0001}}, "crop_pct"),
        ({"pretrained_cfg": {"mean": "gray"}}, "config.json cannot be used"),
    ],
)
def test_a_config_of_timm_that_is_not_plain_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    from tests.unit.tasks.tiny_images import save_tiny
    from workers.engines.architectures import UnsupportedModel

    save_tiny("timm.mobilenetv3_small_100", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UnsupportedModel, match=reason):
        load(tmp_path)
