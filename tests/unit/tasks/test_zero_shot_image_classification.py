"""Zero-shot image classification: endpoints, tiny models that serve and are trained, scores."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import Plan
from registry.catalog.requests import Body, RequestInvalid
from tasks.zero_shot_image_classification.schema import ImagesAndTexts, RankingOptions
from tests.unit.tasks.serving import served
from tests.unit.tasks.tiny_clip import save_tiny_clip
from tests.unit.workers.recording import Answer, Recorder
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    TrainingRequest,
    TrainingResult,
)

TASK = get_task("zero-shot-image-classification")
ZERO_SHOT, EMBEDDINGS = TASK.endpoints
IMAGE = base64.b64decode(TASK.sample["inputs"])
URL = f"data:image/png;base64,{TASK.sample['inputs']}"


def body(**fields: Any) -> Body:
    return Body("application/json", json.dumps(fields).encode())


def read(**fields: Any) -> Plan:
    return ZERO_SHOT.plan(body(**fields), "req_1", "clip")


def read_embeddings(**fields: Any) -> Plan:
    return EMBEDDINGS.plan(body(**{"model": "clip", **fields}), "req_1", "")


def test_the_sample_names_each_label_in_a_sentence() -> None:
    plan = read(**TASK.sample)
    assert plan.model == "clip"
    assert [each.data for each in plan.inputs.images] == [IMAGE]
    assert plan.inputs.texts[0] == "This is a photo of a red shirt."
    assert plan.options.labels == ["a red shirt", "a blue sneaker", "a green bag"]
    assert plan.units == 1


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({}, "candidate_labels"),
        ({"candidate_labels": ["one"]}, "candidate_labels"),
        ({"candidate_labels": ["a", "a"]}, "twice"),
        ({"candidate_labels": ["a", ""]}, "candidate_labels"),
        ({"candidate_labels": ["a", 1]}, "candidate_labels"),
        ({"candidate_labels": ["a", "b"], "hypothesis_template": "a photo"}, "once"),
        ({"candidate_labels": ["a", "b"], "hypothesis_template": "{} {}"}, "once"),
        ({"candidate_labels": ["a", "b"], "top_k": 1}, "top_k"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_with_the_reason(
    parameters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        read(inputs=TASK.sample["inputs"], parameters=parameters)


@pytest.mark.parametrize("content_type", ["image/png", "application/json"])
def test_an_image_without_labels_is_refused(content_type: str) -> None:
    with pytest.raises(RequestInvalid, match="candidate_labels"):
        ZERO_SHOT.plan(Body(content_type, IMAGE), "req_1", "clip")


def test_the_hugging_face_client_works_unmodified(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    # Trainers switch it on in their process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    answer = EngineAnswer("stop", 0, 0, results=[[{"label": "bag", "score": 0.9}]], units=1)
    with served(ZERO_SHOT, answer) as (url, plans):
        client = InferenceClient(model=f"{url}{TASK.endpoint}/clip", token="key")
        (found,) = client.zero_shot_image_classification(
            IMAGE, ["bag", "boot"], hypothesis_template="a picture of a {}"
        )
    assert (found.label, found.score) == ("bag", 0.9)
    assert plans[0].inputs.texts == ["a picture of a bag", "a picture of a boot"]


@pytest.mark.parametrize(
    ("given", "image"),
    [
        ("a bag", False),
        ({"text": "a bag"}, False),
        ({"type": "text", "text": "a bag"}, False),
        ({"image": URL}, True),
        ({"image": TASK.sample["inputs"]}, True),
        ({"type": "image_url", "image_url": {"url": URL, "detail": "auto"}}, True),
    ],
)
def test_inputs_are_texts_and_images_as_others_write_them(given: Any, image: bool) -> None:
    for value in (given, [given]):
        plan = read_embeddings(input=value)
        assert plan.inputs.texts == ([] if image else ["a bag"])
        assert [each.data for each in plan.inputs.images] == ([IMAGE] if image else [])
        assert plan.units == 1


def test_vectors_come_back_in_the_order_of_the_inputs() -> None:
    plan = read_embeddings(input=["a", {"image": URL}, "b", {"image": URL}])
    results = [[1.0], [2.0], [3.0], [4.0]]  # of two images, then of two texts
    rendered = plan.renderer.whole(EngineAnswer("stop", 6, 0, results=results, units=4))
    assert isinstance(rendered, dict)
    assert [each["embedding"] for each in rendered["data"]] == [[3.0], [1.0], [4.0], [2.0]]
    assert [each["index"] for each in rendered["data"]] == [0, 1, 2, 3]


def test_the_openai_client_reads_the_vectors() -> None:
    import openai

    answer = EngineAnswer("stop", 3, 0, results=[[0.5, 0.5], [1.0, 0.0]], units=2)
    with served(EMBEDDINGS, answer) as (url, _):
        client = openai.OpenAI(
            base_url=f"{url}/v1", api_key="key", _strict_response_validation=True
        )
        found = client.embeddings.create(
            model="clip", input=["a bag", {"image": URL}], encoding_format="float"
        )  # type: ignore[list-item]
    assert [each.embedding for each in found.data] == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "input"),
        ("", "input"),
        ([{}], r"input\[0\] must be a text"),
        ([{"text": "a", "image": URL}], r"input\[0\] must be a text"),
        ([{"type": "text", "image": URL}], r"input\[0\] must be a text"),
        ([{"image": "http://example.com/a.png"}], "never fetched"),
        ([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}], "never fetched"),
        ([{"type": "image_url", "image_url": {"url": TASK.sample["inputs"]}}], "never fetched"),
        ([{"image": "data:text/html;base64,AAAA"}], "data:image/"),
        ([{"image": "data:image/png,AAAA"}], "data:image/"),
        ([{"image": "data:image/png;base64,?"}], "not valid base64"),
        ([{"image": "data:image/png;base64,"}], "empty"),
        ([{"audio": "AAAA"}], "audio"),
        ([[1, 2]], "input"),
        ([1], "input"),
        ([{"image": URL}] * 17, "17 images"),
    ],
)
def test_inputs_that_cannot_be_read_are_refused_with_the_reason(given: Any, reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        read_embeddings(input=given)


def words(call: Callable[[], Any]) -> str:
    """Return the words of a refusal; a full stop when there is none."""
    try:
        call()
    except RequestInvalid as error:
        return error.message
    return "."


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["text", "image", "image_url", "url", "type", "candidate_labels", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(given=_JSON, parameters=_JSON)
def test_any_json_is_read_or_refused_in_words(given: Any, parameters: Any) -> None:
    for call in (
        lambda: read_embeddings(input=given),
        lambda: read(inputs=given, parameters=parameters),
        lambda: read(inputs=TASK.sample["inputs"], parameters=parameters),
    ):
        assert words(call).endswith(".")


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200), kind=st.sampled_from(["application/json", "image/png"]))
def test_any_bytes_are_read_or_refused_in_words(data: bytes, kind: str) -> None:
    for endpoint in TASK.endpoints:
        given = Body(kind, data)
        assert words(partial(endpoint.plan, given, "req_1", "clip")).endswith(".")


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(
        folder, runner=TASK.runner, architectures=TASK.architectures, threads=1, device="cpu"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Any:
    made = load(folder)
    yield made
    made.close()


def picture(color: Any = "teal", size: tuple[int, int] = (40, 30)) -> io.BytesIO:
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "PNG")
    stream.seek(0)
    return stream


def ask(engine: Any, labels: list[str] | None = None, **inputs: Any) -> list[Any]:
    answer = Answer()
    engine.submit(
        EngineRequest("r", ImagesAndTexts(**inputs), RankingOptions(labels=labels)), answer
    )
    done = answer.done()
    assert done.units == (1 if labels else sum(map(len, inputs.values())))
    return done.results or []


@pytest.mark.torch
@pytest.mark.parametrize("architecture", TASK.architectures)
def test_labels_are_scored_as_transformers_scores_them(architecture: str, tmp_path: Path) -> None:
    import torch
    import transformers

    from workers.engines.images import load_image_processor, pixels

    save_tiny_clip(tmp_path, architecture)
    labels = ["a", "b c", "def"]
    engine = load(tmp_path)
    try:
        (found,) = ask(engine, labels, images=[picture()], texts=labels)
    finally:
        engine.close()
    model = getattr(transformers, architecture).from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    sigmoid = architecture == "SiglipModel"
    tokens = tokenizer(labels, padding="max_length" if sigmoid else True, return_tensors="pt")
    if sigmoid:
        tokens.pop("attention_mask", None)
    values = pixels(load_image_processor(tmp_path), Image.open(picture()).convert("RGB"))
    with torch.inference_mode():
        logits = model(**tokens, pixel_values=values[None]).logits_per_image[0]
    wanted = logits.sigmoid() if sigmoid else logits.softmax(dim=0)
    assert {each["label"]: each["score"] for each in found} == pytest.approx(
        dict(zip(labels, wanted.tolist(), strict=True)), abs=1e-5
    )
    assert found == sorted(found, key=lambda each: -each["score"])


@pytest.mark.torch
def test_vectors_are_the_same_alone_and_in_a_batch(engine: Any) -> None:
    images = [picture((shade, 99, 0)) for shade in range(0, 250, 50)]
    texts = ["a", "a text that nearly fills", "b", "a"]
    together = ask(engine, images=images, texts=texts)
    assert len(together) == 9
    assert all(sum(x * x for x in each) == pytest.approx(1, abs=1e-5) for each in together)
    alone = [*(ask(engine, images=[each])[0] for each in map(_again, images))]
    alone += [ask(engine, texts=[each])[0] for each in texts]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def _again(stream: io.BytesIO) -> io.BytesIO:
    stream.seek(0)
    return stream


@pytest.mark.torch
def test_what_does_not_fit_is_refused_and_the_engine_goes_on(engine: Any) -> None:
    for inputs, labels in (
        ({}, None),
        ({"images": [picture()]}, ["a", "b"]),
        ({"texts": ["a", "b"]}, ["a", "b"]),
        ({"images": [picture(), picture()], "texts": ["a", "b"]}, ["a", "b"]),
        ({"images": [io.BytesIO(b"no image")]}, None),
        ({"images": [picture(size=(5_000, 2))]}, None),
    ):
        with pytest.raises(RequestRefused):
            ask(engine, labels, **inputs)
    assert len(ask(engine, texts=["a"])) == 1


@pytest.mark.torch
def test_a_model_whose_tokenizer_is_too_large_is_not_served(folder: Path, tmp_path: Path) -> None:
    import shutil

    from workers.engines.architectures import UnsupportedModel

    shutil.copytree(folder, tmp_path / "m")
    path = tmp_path / "m" / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "crop_size": 5_000}))
    with pytest.raises(UnsupportedModel, match="preprocessor_config"):
        load(tmp_path / "m")


def save_colors(folder: Path, count: int, captions: dict[str, Any]) -> list[dict[str, str]]:
    """Write plain images of each caption's color, each a little different."""
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        caption, color = list(captions.items())[number % len(captions)]
        shade = tuple(max(0, part - number // len(captions)) for part in color)
        data = picture(shade).read()
        name = hashlib.sha256(data).hexdigest()
        (folder / name).write_bytes(data)
        rows.append({"image": name, "text": caption})
    return rows


COLORS = {"red": (250, 60, 60), "green": (60, 250, 60), "blue": (60, 60, 250)}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(
    base: Path,
    folder: Path,
    progress: Recorder,
    rows: list[Any],
    resume_from: Path | None = None,
    **wish: Any,
) -> TrainingResult:
    from tasks.zero_shot_image_classification.contrastive import train as run

    request = TrainingRequest(
        task=TASK.name,
        method="full",
        base=base,
        train_file=write(folder / "train.jsonl", rows),
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        hyperparameters={"steps": 80, "learning_rate": 3e-3, "batch_size": 24, **wish},
        resume_from=resume_from,
        media=folder / "media",
    )
    return run(request, progress)


@pytest.mark.torch
@pytest.mark.parametrize("architecture", TASK.architectures)
def test_it_is_canceled_resumed_and_finds_captions(
    architecture: str, tmp_path: Path, progress: Recorder
) -> None:
    from tasks.zero_shot_image_classification.score import CHANCE, MEANS
    from workers.trainers.evaluation import evaluate

    base = save_tiny_clip(tmp_path / "base", architecture)
    rows = save_colors(tmp_path / "media", 90, COLORS)
    cut = Recorder(stop_at=6)
    with pytest.raises(Canceled):
        train(base, tmp_path, cut, rows[:60])
    assert not (tmp_path / "output").exists()
    result = train(base, tmp_path, progress, rows[:60], cut.checkpoints[-1])
    # The stop came at an epoch's end.
    assert f"Resuming from checkpoint-{cut.points[-1][0]}." in progress.lines
    assert result.parameters["captions"] == 3
    output = tmp_path / "output"
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {
        path.name for path in output.iterdir()
    }
    assert str(tmp_path) not in (output / "config.json").read_text()
    found = evaluate(
        EvaluationRequest(
            evaluation_plan(TASK),
            output,
            None,
            write(tmp_path / "test.jsonl", rows[60:]),
            tmp_path / "train.jsonl",
            tmp_path / "media",
        ),
        progress,
    )
    assert found.metrics["accuracy"] > 0.9
    assert found.metrics["recall_10"] > 0.9
    assert found.baseline_name == MEANS
    assert [each["name"] for each in found.details["baselines"]] == [MEANS, CHANCE]
    assert found.details["baselines"][1]["metrics"]["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no rows"),
        ([{"image": "a" * 64}], "Line 1"),
        ([{"image": f"{n:064x}", "text": "one"} for n in range(9)], "at least 16"),
        ([{"image": f"{n:064x}", "text": "one"} for n in range(20)], "the same caption"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(
    folder: Path, tmp_path: Path, progress: Recorder, rows: list[Any], reason: str
) -> None:
    with pytest.raises(BadMaterial, match=reason):
        train(folder, tmp_path, progress, rows)


@pytest.mark.torch
def test_scores_are_those_that_are_computed_by_hand(tmp_path: Path) -> None:
    from tasks.zero_shot_image_classification.score import CHANCE, score
    from workers.trainers.evaluation import Outcome, ScoreRequest

    rows = [
        {"image": tmp_path / row["image"], "text": row["text"]}
        for row in save_colors(tmp_path, 4, {"red": (250, 0, 0), "blue": (0, 0, 250)})
    ]
    # Three images lie at their captions; the last one, which is blue, lies at red.
    texts = {"red": [1.0, 0.0], "blue": [0.0, 1.0]}
    images = [texts["red"], texts["blue"], texts["red"], texts["red"]]
    outcomes = [
        Outcome("", [image, texts[row["text"]]]) for image, row in zip(images, rows, strict=True)
    ]
    found = score(ScoreRequest(rows, outcomes, None, None, Recorder()))
    assert found.metrics == {"accuracy": 0.75, "recall_10": 1.0}
    assert (found.baseline_name, found.baseline) == (CHANCE, {"accuracy": 0.5, "recall_10": 1.0})
    assert {(part["name"], part["value"]) for part in found.slices} == {("red", 1.0), ("blue", 0.5)}
