"""Text to image: both endpoints, a tiny pipeline that is trained and served, scores by hand."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types import ImagesResponse
from PIL import Image

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import MediaResult, Plan, Rendered
from registry.catalog.requests import Body, RequestInvalid
from tasks.text_to_image.schema import DrawingInputs, DrawingOptions
from tests.unit.tasks.repeating import differences
from tests.unit.tasks.tiny_diffusion import save_pipeline
from tests.unit.workers.recording import Answer, Recorder, asked, full_training
from workers.engines.protocol import RequestRefused
from workers.engines.runner import Canceled as RequestCanceled
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    TrainingResult,
)

TASK = get_task("text-to-image")
OPENAI, HUGGING_FACE = TASK.endpoints
OPTIONS = {"steps": 2, "guidance": 2.0}


def read(**body: Any) -> Plan:
    given = {"model": "d", "prompt": "a bag", **body}
    return OPENAI.read(Body("application/json", json.dumps(given).encode()), "req-12", "")


def read_hugging_face(**body: Any) -> Plan:
    given = {"inputs": "a bag", **body}
    return HUGGING_FACE.read(Body("application/json", json.dumps(given).encode()), "req-12", "d")


def test_openai_clients_accept_the_answer_strictly() -> None:
    plan = read(n=2, size="64x32", response_format="b64_json", seed=5)
    assert plan.units == 2
    assert plan.inputs == DrawingInputs(prompt="a bag", n=2, width=64, height=32, seed=5)
    images = [MediaResult(b"png", "image/png", {"seed": seed}) for seed in (5, 6)]
    body = plan.renderer.whole(EngineAnswer("stop", 3, 0, results=images, units=2))
    assert isinstance(body, dict)
    parsed = ImagesResponse.model_validate(body, strict=True)
    assert parsed.data is not None
    assert [each.b64_json for each in parsed.data] == [base64.b64encode(b"png").decode()] * 2
    assert [each["seed"] for each in body["data"]] == [5, 6]
    assert parsed.usage is not None
    assert parsed.usage.total_tokens == parsed.usage.input_tokens == 3


def test_hugging_face_clients_get_the_bytes_of_one_image() -> None:
    plan = read_hugging_face(
        parameters={
            "negative_prompt": "shoes",
            "width": 64,
            "height": 32,
            "num_inference_steps": 3,
            "guidance_scale": 2,
            "seed": 7,
        }
    )
    assert plan.model == "d"
    assert plan.inputs == DrawingInputs(
        prompt="a bag", negative_prompt="shoes", width=64, height=32, seed=7
    )
    assert plan.options == DrawingOptions(steps=3, guidance=2.0)
    images = [MediaResult(b"png", "image/png", {"seed": 7})]
    assert plan.renderer.whole(EngineAnswer("stop", 3, 0, results=images)) == Rendered(
        b"png", "image/png"
    )


def test_what_the_hugging_face_client_sends_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    from registry.catalog.routes import find_route

    sent: list[Any] = []
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (1, 2, 3)).save(file, "PNG")

    def answer(self: Any, request: Any, **rest: Any) -> bytes:
        sent.append(request)
        return file.getvalue()

    # The client's own preparation and parsing, without a server.
    monkeypatch.setattr(InferenceClient, "_inner_post", answer)
    url = "https://assay.example/v1/tasks/text-to-image/painter"
    client = InferenceClient(url, token="key", provider="hf-inference")
    image = client.text_to_image("a bag", seed=3, guidance_scale=2.5, height=32, width=32)
    assert (sent[0].url, sent[0].headers["authorization"]) == (url, "Bearer key")
    route, name = find_route(url.removeprefix("https://assay.example"))
    assert route is not None
    assert (route.endpoints, name) == ({TASK.name: HUGGING_FACE}, "painter")
    plan = HUGGING_FACE.read(
        Body("application/json", json.dumps(sent[0].json).encode()), "req-12", name
    )
    assert (plan.inputs.to_wire()["prompt"], plan.inputs.to_wire()["seed"]) == ("a bag", 3)
    assert plan.options.guidance == 2.5
    assert image.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "p" * 4_001}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"size": "big"}, "size"),
        ({"size": "4000x32"}, "size"),
        ({"response_format": "url"}, "response_format"),
        ({"seed": -1}, "seed"),
        ({"stream": True}, "stream"),
        ({"style": "vivid"}, "style"),
        ({"steps": 3}, "steps"),
    ],
)
def test_a_bad_openai_body_is_refused_and_the_field_is_named(
    body: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestInvalid) as caught:
        read(**body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"inputs": ""}, "inputs"),
        ({"inputs": ["a"]}, "inputs"),
        ({"parameters": {"width": 64}}, "parameters"),
        ({"parameters": {"width": 4, "height": 8}}, "parameters.width"),
        ({"parameters": {"num_inference_steps": 1_000}}, "parameters.num_inference_steps"),
        ({"parameters": {"guidance_scale": 0.5}}, "parameters.guidance_scale"),
        ({"parameters": {"scheduler": "DDIM"}}, "parameters.scheduler"),
        ({"options": {}}, "options"),
    ],
)
def test_a_bad_hugging_face_body_is_refused_and_the_field_is_named(
    body: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestInvalid) as caught:
        read_hugging_face(**body)
    assert caught.value.param == param


def test_a_url_is_refused_with_what_to_send_instead() -> None:
    with pytest.raises(RequestInvalid, match='set response_format to "b64_json"'):
        read(response_format="url")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def engine(pipeline: Path) -> Iterator[Any]:
    from workers.engines.batch_engine import BatchEngine

    engine = BatchEngine(pipeline, runner=TASK.runner, architectures=TASK.architectures, threads=1)
    yield engine
    engine.close()


def draw(engine: Any, name: str = "r", options: dict[str, Any] = OPTIONS, **inputs: Any) -> Answer:
    answer = Answer()
    engine.submit(asked(TASK.name, name, {"prompt": "a bag", **inputs}, options), answer)
    return answer


def images(answer: Answer) -> list[Any]:
    return list(answer.done().results or [])


@pytest.mark.torch
def test_an_image_has_the_same_pixels_alone_and_in_a_batch(engine: Any) -> None:
    alone = images(draw(engine, seed=7))[0]
    with Image.open(io.BytesIO(alone.data)) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (32, 32), "RGB")
    assert (alone.content_type, alone.details["seed"]) == ("image/png", 7)
    answers = [
        draw(engine, "a", n=3, seed=5),
        draw(engine, "b", prompt="a dress", seed=7),
        draw(engine, "c", seed=7, negative_prompt="a dress"),
        draw(engine, "d", seed=7, width=64, height=32),
    ]
    batch, dress, negative, wide = (images(answer) for answer in answers)
    assert [each.details["seed"] for each in batch] == [5, 6, 7]
    assert batch[2].data == alone.data
    assert len({each.data for each in (*batch, *dress, *negative, *wide)}) == 6
    with Image.open(io.BytesIO(wide[0].data)) as image:
        assert image.size == (64, 32)
    assert answers[0].done().units == 3


@pytest.mark.torch
def test_two_requests_without_a_seed_get_different_images(engine: Any) -> None:
    first, second = images(draw(engine, "a"))[0], images(draw(engine, "b"))[0]
    assert first.details["seed"] != second.details["seed"]
    assert first.data != second.data


@pytest.mark.torch
@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ({"prompt": ""}, OPTIONS),
        ({"prompt": 7}, OPTIONS),
        ({"n": 0}, OPTIONS),
        ({"n": True}, OPTIONS),
        ({"seed": 2**32}, OPTIONS),
        ({"width": 72, "height": 32}, OPTIONS),
        ({"width": 30, "height": 32}, OPTIONS),
        ({"image": "x"}, OPTIONS),
        ({}, {"steps": 151, "guidance": 2.0}),
        ({}, {"steps": 2, "guidance": 0.5}),
        ({}, {**OPTIONS, "scheduler": "DDIM"}),
    ],
)
def test_the_runner_refuses_what_does_not_fit(
    engine: Any, inputs: dict[str, Any], options: dict[str, Any]
) -> None:
    with pytest.raises(RequestRefused):
        draw(engine, options=options, **inputs)


@pytest.mark.torch
def test_a_canceled_request_stops_between_steps(pipeline: Path) -> None:
    import torch

    from tasks.text_to_image.runner import TextToImageRunner

    runner = TextToImageRunner(
        pipeline,
        architectures=TASK.architectures,
        device=torch.device("cpu"),
        dtype=None,
    )
    try:
        settings = DrawingOptions(steps=50, guidance=2.0)
        steps: list[int] = []
        after_step = runner._after_step

        def cancel_at_the_third(pipe: Any, step: int, at: Any, tensors: Any) -> Any:
            steps.append(step)
            if step == 2:
                thread = threading.Thread(target=runner.cancel, args=("a",))
                thread.start()
                thread.join()
            return after_step(pipe, step, at, tensors)

        runner._after_step = cancel_at_the_third  # type: ignore[method-assign]
        one = runner.prepare("a", DrawingInputs(prompt="a bag"), settings).items
        other = runner.prepare("b", DrawingInputs(prompt="a bag"), settings).items
        with pytest.raises(RequestCanceled):
            runner.run(runner.collate(one))
        assert steps == [0, 1, 2]
        steps.clear()
        # Another request wants the rest of the batch.
        runner.run(runner.collate([*one, *other]))
        assert len(steps) == 50
    finally:
        runner.close()


def broken(pipeline: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(pipeline, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **changes}))
    return folder


@pytest.mark.torch
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"_class_name": "FluxPipeline"}, "FluxPipeline"),
        ({"_class_name": ["pipeline", "StableDiffusionPipeline"]}, "is not one of"),
        ({"vae": ["my_code", "Vae"]}, "my_code"),
        ({"vae": ["diffusers", "UNet2DModel"]}, "UNet2DModel"),
        ({"vae": ["transformers", "CLIPTextModel"]}, "CLIPTextModel as its vae"),
        ({"extra": ["transformers", "CLIPTextModel"]}, "not a folder"),
        ({"../vae": ["transformers", "CLIPTextModel"]}, "not a folder"),
        ({"vae": [None, None]}, "names no vae"),
        ({"vae": {"diffusers": "AutoencoderKL"}}, "a part must be one of"),
    ],
)
def test_an_index_with_a_foreign_class_or_folder_loads_nothing(
    pipeline: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    from workers.engines.architectures import UnsupportedModel
    from workers.engines.batch_engine import BatchEngine

    folder = broken(pipeline, tmp_path / "broken", **changes)
    with pytest.raises(UnsupportedModel, match=reason):
        BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


@pytest.mark.torch
def test_a_pipeline_comes_in_byte_for_byte(
    pipeline: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.convert import convert

    found = convert(
        pipeline, tmp_path / "out", TASK.architectures, progress, components=TASK.components
    )
    assert found["architecture"] == "StableDiffusionPipeline"
    assert found["parameters"] > 1_000
    for path in pipeline.rglob("*"):
        if path.is_file():
            assert (tmp_path / "out" / path.relative_to(pipeline)).read_bytes() == path.read_bytes()
    foreign = broken(pipeline, tmp_path / "foreign", unet=["diffusers", "FluxTransformer2DModel"])
    with pytest.raises(BadMaterial, match="FluxTransformer2DModel"):
        convert(foreign, tmp_path / "no", TASK.architectures, progress, components=TASK.components)


COLORS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}


def write_rows(folder: Path, name: str, count: int) -> Path:
    """Plain pictures of three colors, each a little different."""
    media = folder / "media"
    media.mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        color, value = list(COLORS.items())[number % 3]
        shade = tuple(channel - number % 20 for channel in value)
        file = io.BytesIO()
        Image.new("RGB", (40, 32 + number % 3), shade).save(file, "PNG")
        digest = hashlib.sha256(file.getvalue()).hexdigest()
        (media / digest).write_bytes(file.getvalue())
        rows.append({"image": digest, "text": f"a {color} square"})
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(
    base: Path,
    folder: Path,
    progress: Recorder,
    train_file: Path,
    resume_from: Path | None = None,
    **wish: Any,
) -> TrainingResult:
    from tasks.text_to_image.fine_tune import train as run

    settings = {"steps": 12, "learning_rate": 1e-3, "batch_size": 8, "ema_decay": 0.5, **wish}
    request = full_training(
        folder,
        task="text-to-image",
        base=base,
        train_file=train_file,
        hyperparameters=settings,
        resume_from=resume_from,
        media=folder / "media",
    )
    return run(request, progress)


def weights(folder: Path) -> str:
    path = folder / "output" / "unet" / "diffusion_pytorch_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.torch
def test_it_is_canceled_and_resumed_to_the_same_weights_and_measured(
    pipeline: Path, tmp_path: Path, progress: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.text_to_image import fine_tune
    from workers.trainers.evaluation import evaluate

    monkeypatch.setattr(fine_tune, "CHECKPOINT_STEPS", 4)
    file = write_rows(tmp_path, "train.jsonl", 48)
    whole = train(pipeline, tmp_path, Recorder(), file)
    expected = weights(tmp_path)
    shutil.rmtree(tmp_path / "output")
    shutil.rmtree(tmp_path / "checkpoints")
    cut = Recorder()
    cut.checkpoint = lambda folder: (  # type: ignore[method-assign]
        cut.checkpoints.append(folder),
        setattr(cut, "stop_at", 0),
    )
    with pytest.raises(Canceled):
        train(pipeline, tmp_path, cut, file)
    assert [each.name for each in cut.checkpoints] == ["checkpoint-4"]
    result = train(pipeline, tmp_path, progress, file, cut.checkpoints[0])
    assert any("Resuming from checkpoint-4" in line for line in progress.lines)
    assert weights(tmp_path) == expected
    assert result.metrics == whole.metrics
    assert result.metrics["validation_loss"] < result.metrics["validation_loss_before"]
    output = tmp_path / "output"
    assert (output / "vae" / "config.json").read_bytes() == (
        pipeline / "vae" / "config.json"
    ).read_bytes()
    assert str(tmp_path) not in (output / "unet" / "config.json").read_text()
    data = write_rows(tmp_path, "test.jsonl", 12)
    found = evaluate(
        EvaluationRequest(
            evaluation_plan(TASK), output, None, data, file, media=tmp_path / "media"
        ),
        progress,
    )
    assert set(found.metrics) == {"prompt_match", "variety"}
    assert found.baseline_name == "images of other prompts"
    real = found.details["baselines"][1]
    # Three plain colors: the reader tells the real ones apart without a fault.
    assert (real["metrics"]["prompt_match"], real["trained_on"]) == (1, 48)
    assert found.sample_size == 12
    assert len(found.reference) == 12
    assert differences(TASK, output, found.reference) == []
    sample = found.details["samples"][0]
    assert sample["output_image"].startswith("data:image/png;base64,")
    assert sample["expected_image"].startswith("data:image/png;base64,")
    assert sample["input"] == "a red square"
    assert {part["name"] for part in found.slices} == {f"a {color} square" for color in COLORS}


@pytest.mark.torch
def test_captions_that_are_cut_are_counted_by_row_and_told(pipeline: Path, tmp_path: Path) -> None:
    # The tokenizer knows letters, reads 16 tokens, and sets one before and one after.
    rows = [
        json.loads(line) for line in write_rows(tmp_path, "all.jsonl", 17).read_text().splitlines()
    ]
    for name, lengths, cut in (
        ("some", [*range(1, 15), 15, 15, 40], 3),
        ("none", [*range(1, 15)], 0),
    ):
        captioned = [
            {**row, "text": "a" * lengths[number % len(lengths)]} for number, row in enumerate(rows)
        ]
        folder = tmp_path / name
        folder.mkdir()
        (folder / "media").symlink_to(tmp_path / "media")
        file = folder / "train.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in captioned))
        progress = Recorder()
        result = train(pipeline, folder, progress, file, steps=1)
        assert result.rows_cut == cut
        assert progress.warnings == [
            f"{cut} of 17 rows are longer than the limit: the beginning of each caption."
        ] * bool(cut)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "no rows"),
        ([{"image": "00"}], "Line 1"),
        ([{"image": "0" * 64, "text": "a bag"}], "There are 1 images"),
        ([{"image": "0" * 64, "text": "a bag"}] * 20, "cannot be read"),
    ],
)
def test_images_that_cannot_be_learned_from_are_refused_with_the_reason(
    pipeline: Path, tmp_path: Path, progress: Recorder, content: list[Any], reason: str
) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / ("0" * 64)).write_bytes(b"no image")
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in content))
    with pytest.raises(BadMaterial, match=reason):
        train(pipeline, tmp_path, progress, file)


@pytest.mark.torch
def test_the_reader_and_variety_equal_values_computed_by_hand(tmp_path: Path) -> None:
    import numpy as np

    from tasks.text_to_image.score import CaptionPredictor, features, variety

    lines = write_rows(tmp_path, "train.jsonl", 30).read_text().splitlines()
    rows = [{**row, "image": tmp_path / "media" / row["image"]} for row in map(json.loads, lines)]
    captions = ["a blue square", "a green square", "a red square"]
    predictor = CaptionPredictor(rows, captions)
    # The rows go red, green, blue.
    assert (
        predictor.predict(np.stack([features(Image.open(row["image"])) for row in rows[:6]]))
        == [2, 1, 0] * 2
    )
    drawn = np.array([[0.0], [2.0], [5.0], [5.0]])
    real = np.array([[0.0], [4.0], [1.0], [3.0]])
    # Within captions: (1 + 0) against (4 + 1).
    assert variety(drawn, real, ["a", "a", "b", "b"]) == pytest.approx(1 / 5)
    assert variety(drawn, real, ["a", "b", "c", "d"]) == pytest.approx(2.5 / 4.5)
    assert variety(drawn, real * 0, ["a", "a", "b", "b"]) == 0
