"""Image-text-to-text: chats with images, a tiny Llava that serves and is trained, scores."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from huggingface_hub import InferenceClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import Choice, Plan
from registry.catalog.requests import Body, RequestInvalid
from tasks.image_text_to_text import SAMPLE_IMAGE, SAMPLE_QUESTION
from tests.unit.tasks.serving import served
from tests.unit.tasks.tiny_llava import save_tiny_llava
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

TASK = get_task("image-text-to-text")
CHAT, MESSAGES, QUESTION = TASK.endpoints
IMAGE = base64.b64decode(SAMPLE_IMAGE)
URL = f"data:image/png;base64,{SAMPLE_IMAGE}"


def picture_part(url: str = URL) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text: str = "What is it?") -> dict[str, Any]:
    return {"type": "text", "text": text}


def read(**fields: Any) -> Plan:
    data = json.dumps({"model": "eyes", **fields}).encode()
    return CHAT.plan(Body("application/json", data), "req_1", "")


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def test_images_keep_their_places_in_the_messages() -> None:
    plan = read(
        messages=[
            {"role": "system", "content": "Be brief."},
            *user(picture_part(), text_part("What is it?"), picture_part()),
            {"role": "assistant", "content": "Two shirts."},
            *user(text_part("Sure?")),
        ],
        max_tokens=9,
    )
    assert [each.data for each in plan.inputs.images] == [IMAGE, IMAGE]
    assert [message.model_dump(exclude_defaults=True) for message in plan.inputs.messages] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "image"}, text_part("What is it?"), {"type": "image"}],
        },
        {"role": "assistant", "content": "Two shirts."},
        {"role": "user", "content": [text_part("Sure?")]},
    ]
    # Two images of 576 tokens are reserved, some text, and the answer.
    assert 2 * 576 + 9 < plan.tokens < 2 * 576 + 40
    assert not plan.stream


def test_a_chat_without_images_is_read_too() -> None:
    plan = read(messages=[{"role": "user", "content": "Hello"}], stream=True)
    assert plan.inputs.images == []
    assert plan.stream


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (user(picture_part("http://example.com/a.png")), "never fetched from other servers"),
        (user(picture_part("https://169.254.169.254/latest")), "never fetched"),
        (user(picture_part("file:///etc/passwd")), "never fetched"),
        (user(picture_part("data:image/png;base64,?")), "not valid base64"),
        (user(picture_part("data:text/plain;base64,AAAA")), "data:image/"),
        (user({"type": "image_url", "image_url": URL}), "image_url"),
        (user({"type": "input_audio", "input_audio": {}}), r"messages\[0\].content"),
        (user(*[picture_part()] * 17), "17 images; at most 16"),
        ([{"role": "assistant", "content": [picture_part()]}], "Only the user's messages"),
        ([{"role": "system", "content": [picture_part()]}], "this one is the system's"),
        (user(), "content"),
        ([], "messages"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(messages: list[Any], reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        read(messages=messages)


def test_a_refusal_names_the_image() -> None:
    with pytest.raises(RequestInvalid) as refused:
        read(messages=user(text_part(), picture_part("http://example.com")))
    assert refused.value.param == "messages[0].content[1].image_url.url"


def block(data: str = SAMPLE_IMAGE, media_type: str = "image/png") -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def test_anthropics_client_sends_images_among_the_blocks_of_a_message() -> None:
    answer = EngineAnswer("stop", 9, 2, choices=[Choice(text="A red shirt.")])
    with served(MESSAGES, answer) as (url, plans):
        client = Anthropic(base_url=url, api_key="key", max_retries=0)
        message = client.messages.create(
            model="eyes",
            max_tokens=9,
            system="Be brief.",
            messages=[
                {"role": "user", "content": [block(), text_part("What is it?")]},
                {"role": "user", "content": "And this?"},
                {"role": "user", "content": [block()]},
            ],
        )
    assert message.content[0].text == "A red shirt."
    (plan,) = plans
    assert [each.data for each in plan.inputs.images] == [IMAGE, IMAGE]
    assert [each.model_dump(exclude_defaults=True) for each in plan.inputs.messages] == [
        {"role": "system", "content": "Be brief."},
        *user(
            {"type": "image"}, text_part("What is it?"), text_part("And this?"), {"type": "image"}
        ),
    ]
    assert 2 * 576 + 9 < plan.tokens < 2 * 576 + 60


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (
            user({"type": "image", "source": {"type": "url", "url": "http://example.com/a.png"}}),
            "source",
        ),
        (user(block("?")), "not valid base64"),
        (user(block("")), "source"),
        (user(block(media_type="image/svg+xml")), "media_type"),
        (user(*[block()] * 17), "17 images; at most 16"),
        (user(*[text_part()] * 129) * 2, "blocks; at most"),
        ([*user(block()), {"role": "assistant", "content": "Red"}], "last message"),
        (
            [{"role": "assistant", "content": [block()]}, *user(text_part())],
            "Only the user's messages",
        ),
        (user({"type": "document", "source": {}}), "content"),
    ],
)
def test_a_message_with_what_is_no_image_is_refused_with_the_reason(
    messages: list[Any], reason: str
) -> None:
    data = json.dumps({"model": "eyes", "max_tokens": 9, "messages": messages}).encode()
    with pytest.raises(RequestInvalid, match=reason):
        MESSAGES.plan(Body("application/json", data), "req_1", "")


def test_the_hugging_face_client_asks_a_question_about_an_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Trainers switch it on in their process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    scores = [("r", math.log(0.5), []), ("ed", math.log(0.5), [])]
    answer = EngineAnswer("stop", 9, 2, choices=[Choice(text=" red", scores=scores)])
    with served(QUESTION, answer) as (url, plans):
        client = InferenceClient(model=f"{url}{QUESTION.path}/eyes", token="key")
        (found,) = client.visual_question_answering(IMAGE, SAMPLE_QUESTION, top_k=1)
        client.visual_question_answering(IMAGE, SAMPLE_QUESTION)
    assert (found.answer, found.score) == ("red", pytest.approx(0.25))
    plan, _ = plans
    assert (plan.model, plan.inputs.images[0].data) == ("eyes", IMAGE)
    parts = [{"type": "image"}, text_part(SAMPLE_QUESTION)]
    assert [each.model_dump(exclude_defaults=True) for each in plan.inputs.messages] == user(*parts)
    assert (plan.options.temperature, plan.options.max_tokens) == (0.0, 32)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"inputs": SAMPLE_IMAGE}, "question"),
        ({"inputs": "?", "question": "a"}, "inputs"),
        ({"inputs": "http://a/b.png", "question": "a"}, "inputs"),
        ({"inputs": SAMPLE_IMAGE, "image": "aGk=", "question": "a"}, "image"),
        ({"inputs": SAMPLE_IMAGE, "question": "a", "parameters": {"top_k": 2}}, "parameters.top_k"),
    ],
)
def test_a_question_that_cannot_be_read_is_refused_and_the_field_is_named(
    body: Any, param: str
) -> None:
    with pytest.raises(RequestInvalid) as caught:
        QUESTION.plan(Body("application/json", json.dumps(body).encode()), "req_1", "eyes")
    assert caught.value.param == param


def words(call: Callable[[], Any]) -> str:
    """Return the words of a refusal; a full stop when there is none."""
    try:
        call()
    except RequestInvalid as error:
        return error.message
    return "."


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "text", "image_url", "url", "role", "content", "x"]),
            inner | st.sampled_from(["text", "image_url", "user", URL]),
            max_size=4,
        )
    ),
    max_leaves=14,
)


@settings(max_examples=200, deadline=None)
@given(given=_JSON)
def test_any_json_is_read_or_refused_in_words(given: Any) -> None:
    for messages in (given, [{"role": "user", "content": given}]):
        assert words(partial(read, messages=messages)).endswith(".")


def load(folder: Path) -> Any:
    from workers.engines.generation import GenerationEngine

    return GenerationEngine(folder, architectures=TASK.architectures, threads=1, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Any]:
    made = load(folder)
    yield made
    made.close()


def picture(color: Any = "teal", size: tuple[int, int] = (40, 30)) -> io.BytesIO:
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "PNG")
    stream.seek(0)
    return stream


def chat(images: int, text: str = "What is it?") -> list[dict[str, Any]]:
    return user(*[{"type": "image"}] * images, text_part(text))


def submit(
    engine: Any,
    name: str,
    images: list[io.BytesIO],
    messages: list[Any] | None = None,
    **options: Any,
) -> Answer:
    answer = Answer()
    engine.submit(
        asked(
            TASK.name,
            name,
            {"messages": messages or chat(len(images)), "images": images},
            {"max_tokens": 8, "temperature": 0.0, **options},
        ),
        answer,
    )
    return answer


@pytest.mark.torch
@pytest.mark.parametrize("images", [0, 1, 3])
def test_it_answers_as_transformers_generates(engine: Any, folder: Path, images: int) -> None:
    import torch
    import transformers

    from workers.engines.images import load_image_processor, pixels

    colors = ["red", "lime", "navy"][:images]
    answer = submit(engine, "one", [picture(color) for color in colors])
    done = answer.done()
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        chat(images), tokenize=False, add_generation_prompt=True
    ).replace("<image>", "<image>" * 4)
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    assert done.prompt_tokens == inputs["input_ids"].shape[1]
    if images:
        processor = load_image_processor(folder)
        inputs["pixel_values"] = torch.stack(
            [pixels(processor, Image.open(picture(color)).convert("RGB")) for color in colors]
        )
    inputs.pop("token_type_ids", None)
    made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    wanted = tokenizer.decode(made[0, done.prompt_tokens :], skip_special_tokens=True)
    assert answer.text == wanted


@pytest.mark.torch
def test_an_answer_about_an_image_has_its_probabilities(engine: Any) -> None:
    answer = submit(engine, "scored", [picture("red")], logprobs=0)
    done = answer.done()
    scores = [score for delta in answer.deltas for score in delta.scores or []]
    assert len(scores) == done.completion_tokens > 0
    assert all(log <= 0 for _, log, _ in scores)


@pytest.mark.torch
def test_chats_with_and_without_images_share_a_batch(engine: Any) -> None:
    questions = [
        ([picture("red")], "What is it?"),
        ([], "Hello, how are you today?"),
        ([picture("lime"), picture("navy")], "Same?"),
        ([picture("red")], "A longer question about the very same picture?"),
    ]
    together = [
        submit(engine, f"t{number}", images, chat(len(images), text))
        for number, (images, text) in enumerate(questions)
    ]
    for number, (answer, (images, text)) in enumerate(zip(together, questions, strict=True)):
        answer.done()
        for each in images:
            each.seek(0)
        alone = submit(engine, f"a{number}", images, chat(len(images), text))
        alone.done()
        assert answer.text == alone.text


@pytest.mark.torch
def test_the_answer_depends_on_the_image(engine: Any) -> None:
    answers = [submit(engine, color, [picture(color)], max_tokens=24) for color in ("red", "white")]
    for answer in answers:
        answer.done()
    assert answers[0].text != answers[1].text


@pytest.mark.torch
def test_what_does_not_fit_is_refused_and_the_engine_goes_on(engine: Any) -> None:
    forged = chat(1, "And <image> here?")
    for images, messages, reason in (
        ([picture()], forged, "must not contain"),
        ([], chat(0, "<image>"), "must not contain"),
        ([picture()], chat(2), "2 places for 1 images"),
        ([io.BytesIO(b"no image")], None, "cannot be read"),
        ([picture(size=(5_000, 2))], None, "longer side"),
        ([picture()] * 17, None, "images"),
    ):
        with pytest.raises(RequestRefused, match=reason):
            submit(engine, "bad", images, messages)
    long = [picture(shade) for shade in ("red", "lime")]
    with pytest.raises(RequestRefused, match="must not exceed 256"):
        submit(engine, "long", long, chat(2, "x" * 240))
    assert submit(engine, "good", [picture()]).done().completion_tokens > 0


@pytest.mark.torch
def test_a_model_of_text_refuses_images(tiny: Path) -> None:
    from workers.engines.generation import GenerationEngine

    engine = GenerationEngine(tiny, architectures=("LlamaForCausalLM",), threads=1, device="cpu")
    try:
        with pytest.raises(RequestRefused, match="reads only text"):
            submit(engine, "r", [picture()])
    finally:
        engine.close()


@pytest.mark.torch
def test_a_model_without_a_fitting_processor_is_not_served(folder: Path, tmp_path: Path) -> None:
    import shutil

    from workers.engines.architectures import UnsupportedModel

    shutil.copytree(folder, tmp_path / "m")
    path = tmp_path / "m" / "preprocessor_config.json"
    stated = json.loads(path.read_text())
    path.write_text(json.dumps({**stated, "crop_size": {"height": 48, "width": 48}}))
    with pytest.raises(UnsupportedModel, match="image processor"):
        load(tmp_path / "m")
    path.unlink()
    with pytest.raises(UnsupportedModel, match="preprocessor_config"):
        load(tmp_path / "m")


COLORS = {"red": (250, 60, 60), "green": (60, 250, 60), "blue": (60, 60, 250)}


def save_rows(folder: Path, count: int) -> list[dict[str, str]]:
    """Write plain images; ask for the color of each."""
    import hashlib

    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        answer, color = list(COLORS.items())[number % len(COLORS)]
        data = picture(tuple(max(0, part - number // 3) for part in color)).read()
        name = hashlib.sha256(data).hexdigest()
        (folder / name).write_bytes(data)
        rows.append({"image": name, "question": SAMPLE_QUESTION, "answer": answer})
    return rows


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
    from tasks.image_text_to_text.fine_tune import train as run

    request = TrainingRequest(
        task=TASK.name,
        method="full",
        base=base,
        train_file=write(folder / "train.jsonl", rows),
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        hyperparameters={"steps": 100, "learning_rate": 5e-3, "batch_size": 16, **wish},
        resume_from=resume_from,
        media=folder / "media",
    )
    return run(request, progress)


@pytest.mark.torch
def test_it_is_canceled_resumed_and_answers_better_than_the_blind(
    folder: Path, tmp_path: Path, progress: Recorder
) -> None:
    from tasks.image_text_to_text.score import BLIND
    from workers.trainers.evaluation import evaluate

    rows = save_rows(tmp_path / "media", 90)
    cut = Recorder(stop_at=8)
    with pytest.raises(Canceled):
        train(folder, tmp_path, cut, rows[:60])
    assert not (tmp_path / "output").exists()
    train(folder, tmp_path, progress, rows[:60], cut.checkpoints[-1])
    # The stop came between two steps.
    assert f"Resuming from checkpoint-{cut.points[-1][0] + 1}." in progress.lines
    output = tmp_path / "output"
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
    assert found.baseline_name == BLIND
    assert found.baseline["accuracy"] == pytest.approx(1 / 3)
    assert found.metrics["accuracy"] > 0.8


@pytest.mark.torch
@pytest.mark.parametrize(
    ("rows", "wish", "reason"),
    [
        ([], {}, "no rows"),
        ([{"image": "a" * 64, "question": "b"}], {}, "Line 1"),
        ([{"image": "a" * 64, "question": "b", "answer": "c"}], {}, "at least 16"),
        (
            [{"image": f"{n:064x}", "question": "b" * 90, "answer": "c"} for n in range(20)],
            {"max_length": 64},
            "max_length is 64",
        ),
        (
            [{"image": f"{n:064x}", "question": "<image>?", "answer": "c"} for n in range(20)],
            {},
            "image token",
        ),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(
    folder: Path,
    tmp_path: Path,
    progress: Recorder,
    rows: list[Any],
    wish: dict[str, Any],
    reason: str,
) -> None:
    with pytest.raises(BadMaterial, match=reason):
        train(folder, tmp_path, progress, rows, **wish)


@pytest.mark.torch
def test_scores_are_those_that_are_computed_by_hand(tmp_path: Path) -> None:
    from tasks.image_text_to_text.score import score
    from workers.trainers.evaluation import Outcome, ScoreRequest

    path = tmp_path / "image"
    path.write_bytes(picture().read())
    pairs = [("What color?", "red"), ("What color?", "blue"), ("Is it red?", "Yes")]
    rows = [{"image": path, "question": ask, "answer": answer} for ask, answer in pairs]
    known = [
        {"question": "what color", "answer": "red"},
        {"question": "Is it red?", "answer": "no"},
        {"question": "Is it red?", "answer": "no"},
    ]
    outcomes = [Outcome(text, []) for text in ("A red.", "green", " yes\n")]
    found = score(ScoreRequest(rows, outcomes, None, known, Recorder()))
    assert found.metrics["accuracy"] == pytest.approx(2 / 3)
    assert found.baseline["accuracy"] == pytest.approx(1 / 3)
    assert {(part["name"], part["n"]) for part in found.slices} == {("what color", 2), ("is it", 1)}
