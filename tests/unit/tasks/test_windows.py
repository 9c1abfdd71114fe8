"""No task cuts what it is sent in silence: an input beyond a model's window is refused with the
limit, or there is a reason for which the task has no limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.catalog import TASKS, get_task
from tests.unit.tasks.tiny_clip import save_tiny_clip
from tests.unit.tasks.tiny_diffusion import save_pipeline as save_diffusion
from tests.unit.tasks.tiny_encoders import save_encoder
from tests.unit.tasks.tiny_llava import save_tiny_llava
from tests.unit.tasks.tiny_wan import save_pipeline as save_wan
from tests.unit.workers.recording import Answer, asked
from workers.engines.protocol import RequestRefused

pytestmark = pytest.mark.torch
WORD = "one "


@dataclass(frozen=True)
class Limited:
    """A task whose models read a length. `inputs` makes inputs of about so many tokens, of which
    `inputs_cut` can be cut; those of a task that `cuts` nothing are always refused."""

    folder: str
    inputs: Callable[[int], dict[str, Any]]
    limit: int
    inputs_cut: int = 1
    cuts: bool = True


NLI = {"id2label": {0: "entailment", 1: "other"}, "label2id": {"entailment": 0, "other": 1}}
SAFE = {"id2label": {0: "safe", 1: "attack"}, "label2id": {"safe": 0, "attack": 1}}
FOLDERS: dict[str, Callable[[Path, Path], Path]] = {
    "encoder": lambda minilm, to: save_encoder(minilm, "BertModel", to),
    "nli": lambda minilm, to: save_encoder(minilm, "BertForSequenceClassification", to, **NLI),
    "safe": lambda minilm, to: save_encoder(minilm, "BertForSequenceClassification", to, **SAFE),
    "reranker": lambda minilm, to: save_encoder(
        minilm, "BertForSequenceClassification", to, num_labels=1
    ),
    "reader": lambda minilm, to: save_encoder(minilm, "BertForQuestionAnswering", to),
    "tagger": lambda minilm, to: save_encoder(minilm, "BertForTokenClassification", to),
    "clip": lambda minilm, to: save_tiny_clip(to),
    "diffusion": lambda minilm, to: save_diffusion(to),
    "wan": lambda minilm, to: save_wan(to),
    "llava": lambda minilm, to: save_tiny_llava(to),
}


def _texts(count: int) -> dict[str, Any]:
    return {"input": ["one", WORD * count, WORD * count]}


def _writer(minilm: Path, to: Path) -> Path:
    from tests.unit.tasks.test_written_texts import save_writer

    return save_writer(to)


def _forecaster(minilm: Path, to: Path) -> Path:
    from tests.unit.tasks.test_time_series_forecasting import save_tiny

    return save_tiny("PatchTSTForPrediction", to)


FOLDERS |= {"writer": _writer, "forecaster": _forecaster}

WINDOWS: dict[str, Limited | str] = {
    "embeddings": Limited("encoder", _texts, 64, 2),
    "text-classification": Limited("safe", _texts, 64, 2),
    "moderation": Limited("safe", _texts, 64, 2),
    "rerank": Limited("reranker", lambda n: {"query": "one", "documents": ["one", WORD * n]}, 64),
    "zero-shot-classification": Limited(
        "nli", lambda n: {"text": WORD * n, "candidate_labels": ["one", "two"]}, 64
    ),
    "zero-shot-image-classification": Limited("clip", lambda n: {"texts": ["a", "a " * n]}, 24),
    "summarization": Limited("writer", lambda n: {"text": WORD * n}, 32),
    "translation": Limited("writer", lambda n: {"text": WORD * n}, 32),
    "text-to-image": Limited("diffusion", lambda n: {"prompt": "a " * n}, 16),
    "text-to-video": Limited("wan", lambda n: {"prompt": "a " * n, "width": 32, "height": 32}, 16),
    "time-series-forecasting": Limited(
        "forecaster", lambda n: {"histories": [[1.0] * 9, [float(k) for k in range(n)]]}, 32
    ),
    "text-generation": Limited("tiny", lambda n: {"prompt": WORD * n}, 256, cuts=False),
    "text-completion": Limited("tiny", lambda n: {"prompt": WORD * n}, 256, cuts=False),
    "image-text-to-text": Limited(
        "llava",
        lambda n: {"messages": [{"role": "user", "content": WORD * n}]},
        256,
        cuts=False,
    ),
    "question-answering": "A text of any length is read in windows that share tokens; a question "
    "that leaves no room for the text is refused.",
    "token-classification": "A text of any length is read in windows that share tokens.",
    "automatic-speech-recognition": "A recording of any length is read in windows of 30 seconds.",
    "audio-classification": "A recording of any length is read in windows, whose scores are "
    "averaged by their length.",
    "voice-activity-detection": "A recording of any length is read part by part.",
    "text-to-speech": "A text of any length is spoken sentence by sentence, long ones by clauses.",
    "text-to-audio": "An opening that is longer than the recording is refused.",
    "video-classification": "Frames are taken evenly over a video of any length, as the model was "
    "trained.",
    "tabular-classification": "A row has the columns that the model lists; others are refused.",
    "image-classification": "An image is resized as the model was trained, whatever its size.",
    "image-feature-extraction": "An image is resized as the model was trained, whatever its size.",
    "image-segmentation": "An image is resized as the model was trained, whatever its size.",
    "object-detection": "An image is resized as the model was trained, whatever its size.",
}
LIMITED = {name: each for name, each in WINDOWS.items() if isinstance(each, Limited)}


def test_every_task_states_its_window_or_the_reason_for_none() -> None:
    assert WINDOWS.keys() == TASKS.keys()
    for reason in WINDOWS.values():
        assert isinstance(reason, Limited) or len(reason) > 20


@pytest.fixture(scope="module")
def folders(
    minilm: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    made: dict[str, Path] = {"tiny": tiny}

    def folder(name: str) -> Path:
        if name not in made:
            to = tmp_path_factory.mktemp(name)
            made[name] = FOLDERS[name](minilm, to)
        return made[name]

    return folder


@pytest.fixture
def start(folders: Callable[[str], Path]) -> Iterator[Callable[[str, str], Any]]:
    from workers.engines.names import load_name

    engines: list[Any] = []

    def started(name: str, folder: str) -> Any:
        task = get_task(name)
        settings = {"runner": task.runner, "architectures": task.architectures, "threads": 1}
        engines.append(load_name(task.engine)(folders(folder), dtype="float32", **settings))
        return engines[-1]

    yield started
    for engine in engines:
        engine.close()


def options(name: str, cutting: bool) -> dict[str, Any]:
    """Return the options of a request that may be cut, as measuring sets them."""
    schema = get_task(name).option_schema
    found = schema().cutting() if cutting else schema()
    few = {"steps": 1} if "steps" in schema.model_fields else {}
    few |= {"max_tokens": 1} if "max_tokens" in schema.model_fields else {}
    few |= {"prediction_length": 1} if "prediction_length" in schema.model_fields else {}
    return {**found.to_wire(), **few}


@pytest.mark.parametrize("name", LIMITED)
def test_an_input_beyond_the_window_is_refused_with_the_limit_or_cut_and_counted(
    name: str, start: Callable[[str, str], Any]
) -> None:
    window = LIMITED[name]
    engine = start(name, window.folder)
    long = window.inputs(10 * window.limit)
    with pytest.raises(RequestRefused) as refused:
        engine.submit(asked(name, "long", long, options(name, False)), Answer())
    assert (refused.value.code, refused.value.status) == ("context_length_exceeded", 400)
    assert f" {window.limit} " in str(refused.value) or f" {window.limit}." in str(refused.value)
    if not window.cuts:
        assert options(name, True) == options(name, False)
        return
    told = Answer()
    engine.submit(asked(name, "cut", long, options(name, True)), told)
    done = told.done()
    assert done.cut_inputs == window.inputs_cut
    assert done.cut_tokens >= 5 * window.limit * window.inputs_cut


@pytest.mark.parametrize("name", [name for name, each in LIMITED.items() if each.cuts])
def test_an_input_that_just_fits_is_neither_refused_nor_cut(
    name: str, start: Callable[[str, str], Any]
) -> None:
    """The longest input that is accepted fills the window; one more is too long."""
    window = LIMITED[name]
    engine = start(name, window.folder)

    def refusal(count: int) -> str:
        try:
            request = asked(name, f"r{count}", window.inputs(count), options(name, False))
            engine._runner.prepare(request.request_id, request.inputs, request.options)
        except RequestRefused as error:
            return str(error)
        return ""

    most = max(count for count in range(1, window.limit + 2) if not refusal(count))
    assert most <= window.limit
    assert f"has {window.limit + 1}" in refusal(most + 1)
    answer = Answer()
    engine.submit(asked(name, "fits", window.inputs(most), options(name, False)), answer)
    assert (answer.done().cut_inputs, answer.done().cut_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("name", "folder", "inputs"),
    [
        ("question-answering", "reader", {"question": "what", "context": WORD * 900}),
        ("token-classification", "tagger", {"text": WORD * 900}),
    ],
)
def test_windows_read_all_of_a_text(
    name: str, folder: str, inputs: dict[str, Any], start: Callable[[str, str], Any]
) -> None:
    answer = Answer()
    start(name, folder).submit(asked(name, "r", inputs), answer)
    done = answer.done()
    assert done.prompt_tokens > 900
    assert (done.cut_inputs, done.cut_tokens) == (0, 0)


def test_texts_with_different_ends_never_have_one_vector(
    start: Callable[[str, str], Any], minilm: Path
) -> None:
    """Five thousand words with different ends had the same vector."""
    from workers.engines.batch_engine import BatchEngine

    task = get_task("embeddings")
    engine = BatchEngine(minilm, runner=task.runner, architectures=task.architectures, threads=1)
    try:
        texts = ["gold " * 5_000 + end for end in ("is sold", "is melted")]
        with pytest.raises(RequestRefused, match=r"is 256 tokens; input 1 has 5,00\d"):
            engine.submit(asked("embeddings", "r", {"input": texts}), Answer())
        vectors = {}
        for side in ("end", "start"):
            answer = Answer()
            engine.submit(asked("embeddings", side, {"input": texts}, {"truncate": side}), answer)
            vectors[side] = answer.done().results or []
            assert answer.done().cut_inputs == 2
    finally:
        engine.close()
    assert vectors["end"][0] == vectors["end"][1]
    assert vectors["start"][0] != vectors["start"][1]


def test_models_with_an_offset_read_what_their_table_has_room_for(
    minilm: Path, tmp_path: Path
) -> None:
    """RoBERTa counts positions from the padding token on; a text of all of them would fail."""
    import torch
    import transformers

    from workers.engines.names import load_name

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=34,
        pad_token_id=1,
        type_vocab_size=1,
    )
    transformers.RobertaModel(config).save_pretrained(tmp_path)
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(tmp_path)
    task = get_task("embeddings")
    runner = load_name(task.runner)(
        tmp_path, architectures=task.architectures, device=torch.device("cpu"), dtype=None
    )
    try:
        request = asked("embeddings", "r", {"input": [WORD * 90]}, {"truncate": "end"})
        prepared = runner.prepare("r", request.inputs, request.options)
        assert prepared.items[0].size == 32
        runner.run(runner.collate(prepared.items))
    finally:
        runner.close()
