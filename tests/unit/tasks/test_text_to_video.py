"""Text to video, a loading path: tiny random weights pass intake's checks, load and answer with an
animated WebP. Nothing here says what the video shows."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from PIL import Image

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import MediaResult, Plan
from registry.catalog.requests import Body, RequestInvalid
from registry.intake.checks import check_file
from registry.intake.layouts import check_layout
from tests.unit.tasks.fuzz import JSON
from tests.unit.tasks.tiny_wan import save_pipeline
from tests.unit.workers.recording import Answer, Recorder, asked
from workers.engines.protocol import RequestRefused

TASK = get_task("text-to-video")
SMALL = {"width": 32, "height": 32, "frames": 5, "seed": 3}


def read(body: Any) -> Plan:
    return TASK.endpoints[0].plan(
        Body("application/json", json.dumps(body).encode()), "req_1", "camera"
    )


def test_a_request_names_prompt_size_and_frames() -> None:
    plan = read(
        {
            "inputs": "a shirt",
            "parameters": {
                "num_frames": 9.0,
                "width": 640,
                "height": 480,
                "num_inference_steps": 4,
                "guidance_scale": 3,
                "negative_prompt": ["blur", "noise"],
                "seed": 7,
            },
        }
    )
    inputs = plan.inputs.model_dump()
    assert (inputs["frames"], inputs["negative_prompt"], inputs["seed"]) == (9, "blur, noise", 7)
    assert plan.options.to_wire() == {"steps": 4, "guidance": 3.0}
    assert plan.units == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": ""}, "inputs"),
        ({"parameters": {"num_frames": 0}}, "num_frames"),
        ({"parameters": {"num_frames": 1_000}}, "num_frames"),
        ({"parameters": {"width": 8}}, "width"),
        ({"parameters": {"width": 1_280, "height": 1_280, "num_frames": 121}}, "fewer frames"),
        ({"parameters": {"scheduler": "x"}}, "Unrecognized"),
        ({"parameters": {"negative_prompt": ["x" * 2_000] * 2}}, "4,002 characters in all"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(change: Any, said: str) -> None:
    with pytest.raises(RequestInvalid, match=said):
        read({"inputs": "a shirt", **change})


@settings(max_examples=30)
@given(inputs=JSON, parameters=JSON)
def test_any_body_is_read_or_refused_in_words(inputs: Any, parameters: Any) -> None:
    try:
        plan = read({"inputs": inputs, "parameters": parameters})
    except RequestInvalid:
        return
    assert plan.units > 0


def test_the_answer_is_the_video_itself() -> None:
    plan = read({"inputs": "a shirt"})
    result = MediaResult(b"RIFF", "image/webp", {"seed": 1})
    made = plan.renderer.whole(EngineAnswer("stop", 0, 0, results=[result]))
    assert (made.body, made.content_type) == (b"RIFF", "image/webp")  # type: ignore[union-attr]


# ---- with a model ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("wan"))


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Any]:
    engine = load(folder)
    yield engine
    engine.close()


def video(engine: Any, **inputs: Any) -> Any:
    answer = Answer()
    given = {"prompt": "a shirt", **SMALL, **inputs}
    engine.submit(asked(TASK.name, "r", given, {"steps": 2}), answer)
    (result,) = answer.done().results or []
    return result


@pytest.mark.torch
def test_a_delivered_pipeline_passes_intake_and_conversion(folder: Path, tmp_path: Path) -> None:
    from workers.trainers.convert import convert

    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert check_layout(folder, files).startswith("A diffusers pipeline of 5 parts")
    for file in files:
        check_file(folder / file, file)
    found = convert(folder, tmp_path / "out", TASK.architectures, Recorder(), TASK.components)
    assert found["architecture"] == "WanPipeline"


@pytest.mark.torch
def test_a_prompt_becomes_an_animated_webp_and_a_seed_makes_it_again(engine: Any) -> None:
    first, again, other = (video(engine, seed=seed) for seed in (3, 3, 4))
    assert (first.content_type, first.details) == ("image/webp", {"seed": 3})
    picture = Image.open(io.BytesIO(first.data))
    assert (picture.format, picture.size, picture.n_frames) == ("WEBP", (32, 32), 5)
    assert first.data == again.data
    assert first.data != other.data


@pytest.mark.torch
def test_a_canceled_video_ends_after_its_step_and_is_not_decoded(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = engine._runner
    after_step, decode = runner._after_step, runner._pipe.vae.decode
    done: list[Any] = []

    def cancel_at_the_second(pipe: Any, step: int, at: Any, tensors: Any) -> Any:
        done.append(step)
        if step == 1:
            # As `cancel` of the engine begins, before it marks the request.
            runner.cancel("r")
        return after_step(pipe, step, at, tensors)

    def record(*given: Any, **settings: Any) -> Any:
        done.append("decoded")
        return decode(*given, **settings)

    monkeypatch.setattr(runner, "_after_step", cancel_at_the_second)
    monkeypatch.setattr(runner._pipe.vae, "decode", record)
    answer = Answer()
    engine.submit(asked(TASK.name, "r", {"prompt": "a shirt", **SMALL}, {"steps": 5}), answer)
    assert (answer.done().finish_reason, done) == ("canceled", [0, 1])
    monkeypatch.undo()
    # The engine goes on with the next request.
    assert video(engine).content_type == "image/webp"


@pytest.mark.torch
@pytest.mark.parametrize(
    ("change", "said"), [({"width": 40}, "multiples of 16"), ({"frames": 6}, "multiple of 4")]
)
def test_sizes_that_the_model_does_not_have_are_refused(
    engine: Any, change: dict[str, int], said: str
) -> None:
    with pytest.raises(RequestRefused, match=said):
        video(engine, **change)


@pytest.mark.torch
@pytest.mark.parametrize(
    "change",
    [
        {"vae": ["diffusers", "AutoencoderKL"]},
        {"scheduler": ["diffusers", "WanTransformer3DModel"]},
        {"transformer": [None, None]},
        {"_class_name": "StableDiffusionPipeline"},
    ],
)
def test_an_index_that_names_other_classes_is_unsupported(
    folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    import shutil

    from workers.engines.architectures import UnsupportedModel

    copy = shutil.copytree(folder, tmp_path / "copy")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, **change}))
    with pytest.raises(UnsupportedModel):
        load(copy)
