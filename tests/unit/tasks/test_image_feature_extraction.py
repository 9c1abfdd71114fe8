"""Image feature extraction: both endpoints, every architecture, scores computed by hand."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import Plan
from registry.catalog.inputs import NoOptions
from registry.catalog.requests import Body, RequestInvalid
from tasks.image_feature_extraction import SAMPLE_IMAGE
from tasks.image_feature_extraction.schema import Images
from tests.thoroughness import first_and_last
from tests.unit.tasks.serving import served
from tests.unit.workers.recording import Answer, Recorder
from workers.engines.protocol import EngineRequest, RequestRefused

TASK = get_task("image-feature-extraction")
EMBEDDINGS, FEATURES = TASK.endpoints
IMAGE = base64.b64decode(SAMPLE_IMAGE)
URL = f"data:image/png;base64,{SAMPLE_IMAGE}"


def read(**fields: Any) -> Plan:
    data = json.dumps({"model": "eyes", **fields}).encode()
    return EMBEDDINGS.plan(Body("application/json", data), "req_1", "")


def test_images_are_embedded_in_the_order_given() -> None:
    plan = read(input=[{"image": URL}, {"type": "image_url", "image_url": {"url": URL}}])
    assert [each.data for each in plan.inputs.images] == [IMAGE, IMAGE]
    assert plan.units == 2
    rendered = plan.renderer.whole(EngineAnswer("stop", 0, 0, results=[[1.0], [2.0]], units=2))
    assert isinstance(rendered, dict)
    assert [each["embedding"] for each in rendered["data"]] == [[1.0], [2.0]]


def test_a_text_is_refused_with_the_reason() -> None:
    with pytest.raises(RequestInvalid, match="Input 1 is a text; this model reads only images"):
        read(input=[{"image": URL}, "a bag"])


@pytest.mark.parametrize("content_type", ["image/png", "application/json"])
def test_an_image_is_the_whole_body(content_type: str) -> None:
    plan = FEATURES.plan(Body(content_type, IMAGE), "req_1", "eyes")
    assert [each.data for each in plan.inputs.images] == [IMAGE]
    assert plan.renderer.whole(EngineAnswer("stop", 0, 0, results=[[1.0, 2.0]])) == [[1.0, 2.0]]


def test_the_hugging_face_client_works_unmodified(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    # Trainers switch it on in their process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    answer = EngineAnswer("stop", 0, 0, results=[[0.6, 0.8]], units=1)
    with served(FEATURES, answer) as (url, plans):
        client = InferenceClient(model=f"{url}{FEATURES.path}/eyes", token="key")
        found = client.feature_extraction(SAMPLE_IMAGE)
    assert found.shape == (1, 2)
    assert plans[0].inputs.images[0].data == IMAGE


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200), kind=st.sampled_from(["application/json", "image/png"]))
def test_any_bytes_are_read_or_refused_in_words(data: bytes, kind: str) -> None:
    for endpoint in TASK.endpoints:
        try:
            endpoint.plan(Body(kind, data), "req_1", "eyes")
            said = "."
        except RequestInvalid as error:
            said = error.message
        assert said.endswith(".")


def picture(color: Any = "teal", size: tuple[int, int] = (40, 30)) -> io.BytesIO:
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "PNG")
    stream.seek(0)
    return stream


@pytest.mark.torch
@pytest.mark.parametrize("architecture", first_and_last(TASK.architectures))
def test_every_allowed_architecture_makes_unit_vectors(architecture: str, tmp_path: Path) -> None:
    from tests.unit.tasks.tiny_images import save_tiny_encoder
    from workers.engines.batch_engine import BatchEngine

    engine = BatchEngine(
        save_tiny_encoder(architecture, tmp_path),
        runner=TASK.runner,
        architectures=TASK.architectures,
        threads=1,
        device="cpu",
    )
    try:
        answer = Answer()
        images = Images(images=[picture(), picture("red"), picture()])
        engine.submit(EngineRequest("r", images, NoOptions()), answer)
        done = answer.done()
        bad = Images(images=[io.BytesIO(b"no image")])
        with pytest.raises(RequestRefused):
            engine.submit(EngineRequest("s", bad, NoOptions()), Answer())
    finally:
        engine.close()
    first, second, third = done.results or []
    assert done.units == 3
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-4)
    assert first == pytest.approx(third, abs=1e-5)
    assert first != pytest.approx(second, abs=1e-5)


@pytest.mark.torch
def test_scores_are_those_that_are_computed_by_hand(tmp_path: Path) -> None:
    from tasks.image_feature_extraction.score import PIXELS, score
    from workers.trainers.evaluation import Outcome, ScoreRequest

    rows = []
    for number, (label, color) in enumerate(
        [("a", "red"), ("a", "red"), ("b", "blue"), ("b", "red")]
    ):
        path = tmp_path / str(number)
        path.write_bytes(picture(color, (40 + number, 40)).read())
        rows.append({"image": path, "label": label})
    vectors = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]
    outcomes = [Outcome("", [vector]) for vector in vectors]
    found = score(ScoreRequest(rows, outcomes, None, None, Recorder()))
    assert found.metrics["nearest"] == 1.0
    assert found.baseline_name == PIXELS
    # By color, only the two red ones of "a" find each other.
    assert found.baseline["nearest"] == pytest.approx(0.5)
