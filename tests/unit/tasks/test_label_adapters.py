"""Adapters of classifiers: trained by LoRA, and served on a base that does not change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from registry.catalog import get_task
from registry.catalog.declaration import Task
from registry.manifests import build_manifest
from tests.unit.workers.recording import Answer, Recorder
from tests.unit.workers.tiny import save_encoder
from workers.engine_process.client import OwnEngines
from workers.engines.names import load_name
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    TrainingRequest,
    TrainingResult,
)

pytestmark = pytest.mark.torch

GOOD = ("wonderful", "great", "happy", "excellent", "fine")
BAD = ("terrible", "awful", "angry", "broken", "useless")
SUBJECTS = ("it", "we", "they", "all")
NAMES = ("ana", "rui", "bo", "ines", "otto", "lea")
CITIES = ("porto", "lagos", "ulm", "bonn")
WORDS = (*GOOD, *BAD, *SUBJECTS, *NAMES, *CITIES, "lives", "in", "near")
FILES = ["adapter_config.json", "adapter_model.safetensors", "labels.json"]


@dataclass(frozen=True, slots=True)
class Tiny:
    """A small random base, rows with their media, and settings with which it learns them."""

    base: Path
    rows: list[dict[str, Any]]
    settings: dict[str, Any]
    media: Path | None = None
    column: str = ""

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row with the path of its file."""
        return row if self.media is None else {**row, self.column: self.media / row[self.column]}


def encoder(folder: Path) -> Path:
    """Return a random encoder in which each word changes the text's first vector."""
    import torch

    torch.manual_seed(5)
    return save_encoder(folder, WORDS, initializer_range=0.2)


def texts(folder: Path) -> Tiny:
    rows = [
        {"text": f"{word} {subject} {word}", "label": label}
        for subject in SUBJECTS
        for words, label in ((GOOD, "good"), (BAD, "bad"))
        for word in words
    ]
    settings = {"epochs": 16, "learning_rate": 0.01, "batch_size": 4, "max_length": 16}
    return Tiny(encoder(folder / "base"), rows, settings)


def tokens(folder: Path) -> Tiny:
    rows = []
    for place in ("in", "near"):
        for name in NAMES:
            for city in CITIES:
                text = f"{name} lives {place} {city}"
                begin = len(text) - len(city)
                spans = [
                    {"start": 0, "end": len(name), "label": "NAME"},
                    {"start": begin, "end": len(text), "label": "CITY"},
                ]
                rows.append({"text": text, "spans": spans})
    settings = {"epochs": 12, "learning_rate": 0.01, "batch_size": 8, "max_length": 16}
    return Tiny(encoder(folder / "base"), rows, settings)


def images(folder: Path) -> Tiny:
    from tests.unit.tasks.tiny_images import save_digits, save_tiny

    rows = save_digits(folder / "media", 240)
    settings = {"epochs": 12, "learning_rate": 0.01, "batch_size": 8}
    return Tiny(
        save_tiny("ViTForImageClassification", folder / "base"),
        [row for row in rows if row["label"] in "01"],
        settings,
        folder / "media",
        "image",
    )


def recordings(folder: Path) -> Tiny:
    from tests.unit.tasks.tiny_audio import save_tiny, save_tones

    settings = {"epochs": 10, "learning_rate": 0.01, "batch_size": 8}
    return Tiny(
        save_tiny("ASTForAudioClassification", folder / "base"),
        save_tones(folder / "media", 40),
        settings,
        folder / "media",
        "audio",
    )


TINY: dict[str, Callable[[Path], Tiny]] = {
    "text-classification": texts,
    "token-classification": tokens,
    "image-classification": images,
    "audio-classification": recordings,
}


def train(
    task: Task,
    tiny: Tiny,
    folder: Path,
    progress: Recorder,
    resume_from: Path | None = None,
    **settings: Any,
) -> TrainingResult:
    folder.mkdir(exist_ok=True)
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in tiny.rows))
    request = TrainingRequest(
        task=task.name,
        method="lora",
        base=tiny.base,
        train_file=data,
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        hyperparameters={**tiny.settings, "lora_rank": 2, **settings},
        resume_from=resume_from,
        media=tiny.media,
    )
    result: TrainingResult = load_name(task.recipe("lora").train)(request, progress)
    return result


def load(task: Task, base: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(base, runner=task.runner, architectures=task.base_architectures, threads=1)


def ask(engine: Any, task: Task, row: dict[str, Any], adapter: str | None) -> list[dict[str, Any]]:
    """Return the labels of a row, best first, or its passages."""
    assert task.evaluation is not None
    answer = Answer()
    engine.submit(EngineRequest("r", *task.evaluation.request(row), adapter), answer)
    (labels,) = answer.done().results or []
    return list(labels)


def is_right(row: dict[str, Any], labels: list[dict[str, Any]]) -> bool:
    if "label" in row:
        return bool(labels[0]["label"] == row["label"])
    passages = {(each["start"], each["end"], each["entity_group"]) for each in labels}
    return passages == {(each["start"], each["end"], each["label"]) for each in row["spans"]}


@pytest.mark.parametrize("name", TINY)
def test_an_adapter_is_trained_and_served_on_a_base_that_does_not_change(
    name: str, tmp_path: Path, progress: Recorder
) -> None:
    task, tiny = get_task(name), TINY[name](tmp_path)
    digest = build_manifest(tiny.base).digest
    result = train(task, tiny, tmp_path, progress)
    output = tmp_path / "output"
    assert build_manifest(tiny.base).digest == digest
    assert sorted(path.name for path in output.iterdir()) == FILES
    assert str(tmp_path) not in (output / "adapter_config.json").read_text()
    size = (tiny.base / "model.safetensors").stat().st_size
    assert (output / "adapter_model.safetensors").stat().st_size < size / 2
    assert any("parameters are tuned" in line for line in progress.lines)
    assert result.parameters["lora_rank"] == 2
    engine = load(task, tiny.base)
    try:
        has_head = tiny.media is not None
        before = ask(engine, task, tiny.row(tiny.rows[0]), None) if has_head else None
        with pytest.raises(RequestRefused, match="No adapter named 'tuned' is loaded"):
            ask(engine, task, tiny.row(tiny.rows[0]), "tuned")
        engine.add_adapter("tuned", output)
        with pytest.raises(ValueError, match="is loaded already"):
            engine.add_adapter("tuned", output)
        answers = [ask(engine, task, tiny.row(row), "tuned") for row in tiny.rows]
        assert before is None or ask(engine, task, tiny.row(tiny.rows[0]), None) == before
        engine.remove_adapter("tuned")
        with pytest.raises(ValueError, match="No adapter named 'tuned' is loaded"):
            engine.remove_adapter("tuned")
    finally:
        engine.close()
    right = [is_right(row, labels) for row, labels in zip(tiny.rows, answers, strict=True)]
    # A constant answer is right in half of the rows, or in none.
    assert sum(right) / len(right) > 0.7
    if name != "token-classification":
        assert {each["label"] for each in answers[0]} == {row["label"] for row in tiny.rows}
        assert served_accuracy(task, tiny, right) == result.metrics["validation_accuracy"]


def served_accuracy(task: Task, tiny: Tiny, right: list[bool]) -> float:
    """Return the share of right answers on the rows that training validated on."""
    from workers.trainers.classifier_training import split_by_label

    settings: Any = task.recipe("lora").hyperparameters(**tiny.settings)
    held_out = split_by_label(tiny.rows, settings, Recorder()).validation
    return sum(right[tiny.rows.index(row)] for row in held_out) / len(held_out)


def test_an_adapter_is_measured_without_its_base_which_has_other_labels(
    tmp_path: Path, progress: Recorder
) -> None:
    from tasks.image_classification.baselines import PIXELS
    from workers.trainers.evaluation import evaluate

    task, tiny = get_task("image-classification"), images(tmp_path)
    train(task, tiny, tmp_path, progress)
    data = tmp_path / "train.jsonl"
    measured = evaluate(
        EvaluationRequest(
            evaluation_plan(task), tmp_path / "output", tiny.base, data, data, tiny.media
        ),
        progress,
    )
    assert measured.metrics["accuracy"] > 0.8
    assert measured.details["confusion_matrix"]["labels"] == ["0", "1"]
    assert measured.baseline_name == PIXELS
    assert len(measured.reference) == 16


def test_a_resumed_run_makes_the_same_adapter(tmp_path: Path, progress: Recorder) -> None:
    task, tiny = get_task("text-classification"), texts(tmp_path)
    cut = Recorder(stop_at=6)
    with pytest.raises(Canceled):
        train(task, tiny, tmp_path / "cut", cut, epochs=2)
    train(task, tiny, tmp_path / "cut", progress, cut.checkpoints[-1], epochs=2)
    train(task, tiny, tmp_path / "whole", progress, epochs=2)
    digests = [build_manifest(tmp_path / each / "output").digest for each in ("cut", "whole")]
    assert digests[0] == digests[1]


def test_a_base_without_a_layer_for_lora_is_refused_with_a_way_out(
    tmp_path: Path, progress: Recorder
) -> None:
    from tests.unit.tasks.tiny_images import save_digits, save_tiny

    rows = [row for row in save_digits(tmp_path / "media", 60) if row["label"] in "01"]
    base = save_tiny("ResNetForImageClassification", tmp_path / "base")
    tiny = Tiny(base, rows, {}, tmp_path / "media", "image")
    with pytest.raises(BadMaterial, match=r"ResNet.* has no layer for LoRA.* Use the method full"):
        train(get_task("image-classification"), tiny, tmp_path, progress)


@dataclass(frozen=True, slots=True)
class Made:
    """A loaded base, a classifier on it in training, its saved adapter, and an input."""

    task: Task
    base: Any
    model: Any
    adapter: Path
    inputs: dict[str, Any] = field(default_factory=dict)


LABELS = ["left", "right"]


def made(task: Task, base_folder: Path, head: tuple[str, ...], adapter: Path) -> Made:
    """Return an adapter with random weights, as strong as those of the base."""
    import torch

    from workers.engines.loading import load_model
    from workers.hyperparameters import LoraSettings
    from workers.trainers.adapter_training import load_adaptable, save_adapter, with_lora

    architectures = task.base_architectures
    base = load_model(base_folder, architectures)
    model = load_adaptable(base_folder, architectures, LABELS, head)
    model = with_lora(model, head, LoraSettings(lora_rank=2), Recorder()).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(model, adapter, LABELS)
    side = getattr(base.config, "pretrained_cfg", {"input_size": [3, 32, 32]})["input_size"][-1]
    inputs: dict[str, Any] = {
        "input_ids": torch.arange(5, 13)[None],
        "pixel_values": torch.rand(1, 3, side, side),
        "input_values": torch.rand(1, 8_000),
        "input_features": torch.rand(1, 80, 100),
    }
    name = base.main_input_name
    return Made(task, base, model, adapter, {name: inputs[name]})


@pytest.mark.parametrize(
    ("name", "architecture", "head"),
    [
        ("text-classification", "BertModel", ("classifier", "pooler")),
        ("token-classification", "BertModel", ("classifier",)),
        ("image-classification", "ViTForImageClassification", ("classifier",)),
        ("image-classification", "ConvNextForImageClassification", ("classifier",)),
        ("image-classification", "timm.vit_tiny_patch16_224", ("head",)),
        ("audio-classification", "Wav2Vec2ForSequenceClassification", ("classifier", "projector")),
    ],
)
def test_a_served_adapter_computes_what_was_trained_and_shares_its_base(
    name: str, architecture: str, head: tuple[str, ...], tmp_path: Path
) -> None:
    import torch

    from tests.unit.tasks import tiny_audio, tiny_images
    from workers.engines.label_adapters import with_adapter

    folder = tmp_path / "base"
    if architecture == "BertModel":
        encoder(folder)
    else:
        media = tiny_audio if name == "audio-classification" else tiny_images
        media.save_tiny(architecture, folder)
    each = made(get_task(name), folder, head, tmp_path / "adapter")
    before = {key: value.clone() for key, value in tensors(each.base)}
    served = with_adapter(each.base, each.adapter, each.task.base_architectures)
    with torch.inference_mode():
        assert torch.equal(served(**each.inputs).logits, each.model(**each.inputs).logits)
    assert served.config.id2label == {0: "left", 1: "right"}
    after = dict(tensors(each.base))
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    places = {value.data_ptr() for value in after.values()}
    own = [key for key, value in tensors(served) if value.data_ptr() not in places]
    parts = ("lora_", ".modules_to_save.", ".original_module.")
    assert any(parts[1] in key for key in own)
    assert all(any(part in key for part in parts) for key in own)


def tensors(model: Any) -> Iterator[tuple[str, Any]]:
    return chain(model.named_parameters(), model.named_buffers())


def test_training_leaves_the_running_statistics_of_a_base_alone(tmp_path: Path) -> None:
    import torch

    from tests.unit.tasks.tiny_audio import save_tiny
    from workers.engines.label_adapters import with_adapter

    # It normalizes batches.
    base = save_tiny("Wav2Vec2ConformerForSequenceClassification", tmp_path / "base")
    task, head = get_task("audio-classification"), ("classifier", "projector")
    each = made(task, base, head, tmp_path / "adapter")
    served = with_adapter(each.base, each.adapter, task.base_architectures)
    with torch.inference_mode():
        each.model.train()(**each.inputs)
        assert torch.equal(served(**each.inputs).logits, each.model.eval()(**each.inputs).logits)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("classifier")
    task = get_task("text-classification")
    base = encoder(folder / "base")
    return made(task, base, ("classifier", "pooler"), folder / "adapter")


@pytest.fixture
def adapter(classifier: Made, tmp_path: Path) -> Path:
    """Return a copy of an adapter, to spoil."""
    return Path(shutil.copytree(classifier.adapter, tmp_path / "adapter"))


def refused(classifier: Made, adapter: Path, reason: str) -> None:
    from workers.engines.label_adapters import with_adapter

    with pytest.raises(ValueError, match=reason):
        with_adapter(classifier.base, adapter, classifier.task.base_architectures)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"modules_to_save": ["(a+)+"]}, "does not list the modules of its head"),
        ({"modules_to_save": ["classifier"] * 17}, "does not list the modules of its head"),
        ({"modules_to_save": None}, "does not list the modules of its head"),
        ({"modules_to_save": ["classifier"]}, "its weights and its config differ"),
        ({"modules_to_save": ["pooler"]}, "lacks the weights classifier"),
        ({"use_dora": True}, "sets use_dora, which this engine does not serve"),
        ({"r": 4}, "not an adapter for this base"),
        ({"target_modules": ["query"]}, "its weights and its config differ"),
        ({"target_modules": ".*query"}, "does not list the modules that it changes"),
    ],
)
def test_a_config_that_would_change_more_is_refused(
    classifier: Made, adapter: Path, change: dict[str, Any], reason: str
) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(classifier, adapter, reason)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (None, "has no labels.json"),
        ({}, "must be 1 to 1000 different texts"),
        ({"labels": ["a", "a"]}, "must be 1 to 1000 different texts"),
        ({"labels": ["a", 1]}, "must be 1 to 1000 different texts"),
        ({"labels": ["a", "b" * 201]}, "must be 1 to 1000 different texts"),
        ({"labels": ["a", "b", "c"]}, "not an adapter for this base"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    classifier: Made, adapter: Path, labels: Any, reason: str
) -> None:
    (adapter / "labels.json").unlink()
    if labels is not None:
        (adapter / "labels.json").write_text(json.dumps(labels))
    refused(classifier, adapter, reason)


def test_weights_for_the_base_are_refused(classifier: Made, adapter: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.bert.embeddings.word_embeddings.weight"
    weights[name] = classifier.base.embeddings.word_embeddings.weight.clone()
    save_file(weights, adapter / "adapter_model.safetensors")
    refused(classifier, adapter, "its weights and its config differ in .*word_embeddings")


def test_an_adapter_answers_the_same_in_the_confined_process_of_engines(classifier: Made) -> None:
    folder, task = classifier.adapter.parent, classifier.task
    engines = [
        load(task, folder / "base"),
        OwnEngines().load(
            task.engine,
            folder / "base",
            root=folder,
            architectures=task.base_architectures,
            runner=task.runner,
            threads=1,
        ),
    ]
    answers = []
    for engine in engines:
        try:
            engine.add_adapter("a", classifier.adapter)
            answers.append(ask(engine, task, {"text": "it was great"}, "a"))
        finally:
            engine.close()
    assert answers[0] == answers[1]
    assert {each["label"] for each in answers[0]} == set(LABELS)


def test_a_delivered_adapter_is_kept_if_an_engine_would_load_it(
    adapter: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.delivered_adapter import keep_adapter

    kept = keep_adapter(adapter, tmp_path / "kept", progress, has_head=True)
    assert (kept["architecture"], kept["virtual_tokens"]) == ("LoRA", 0)
    assert build_manifest(tmp_path / "kept").digest == build_manifest(adapter).digest
    with pytest.raises(BadMaterial, match="sets modules_to_save"):
        keep_adapter(adapter, tmp_path / "text", progress)
    (adapter / "labels.json").unlink()
    with pytest.raises(BadMaterial, match=r'has a labels.json: \{"labels"'):
        keep_adapter(adapter, tmp_path / "bare", progress, has_head=True)
