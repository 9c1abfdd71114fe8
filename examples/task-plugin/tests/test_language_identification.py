"""Unit tests of the task: data, training, runner and endpoint. No services are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language_identification import TASK
from language_identification.endpoint import read_inputs
from language_identification.material import write
from language_identification.ngrams import BUCKETS, load, save
from language_identification.runner import MAX_CHARACTERS, LanguageRunner
from language_identification.train import train

from assay.plugins import declare, run

GERMAN = "Bitte geben Sie eine gültige E-Mail-Adresse ein."


class Recorder:
    """Progress that records the losses, and requests a stop at call `stop_after` + 1."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.losses: list[float] = []
        self._left = stop_after

    def log(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def metric(self, step: int, total: int, values: dict[str, float]) -> None:
        self.losses.append(values["loss"])

    def checkpoint(self, folder: Path) -> None: ...

    def should_stop(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("material")
    write(folder)
    return folder


def request(material: Path, output: Path, **settings: Any) -> run.TrainingRequest:
    return run.TrainingRequest(
        task=TASK.name,
        method="full",
        base=material / "initial",
        train_file=material / "train.jsonl",
        output=output,
        checkpoints=output / "checkpoints",
        hyperparameters=settings,
    )


@pytest.fixture(scope="module")
def version(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("version")
    recorder = Recorder()
    result = train(request(material, folder, epochs=4), recorder)
    assert recorder.losses == sorted(recorder.losses, reverse=True)
    assert result.metrics["validation_accuracy"] > 0.85
    return folder


def runner(folder: Path) -> LanguageRunner:
    return LanguageRunner(folder, architectures=TASK.architectures, device="cpu", dtype=None)


def ranked(loaded: LanguageRunner, *texts: str) -> list[Any]:
    items = loaded.prepare("r1", declare.TextInputs(input=list(texts)), declare.NoOptions()).items
    return loaded.split(loaded.run(loaded.collate(items)), items)


def test_no_text_and_no_message_is_in_both_training_and_test_data(material: Path) -> None:
    texts = {
        part: [json.loads(line) for line in (material / f"{part}.jsonl").open(encoding="utf-8")]
        for part in ("train", "test")
    }
    assert len({row["label"] for row in texts["train"]}) == 20
    assert not {row["text"] for row in texts["train"]} & {row["text"] for row in texts["test"]}
    for row in texts["train"][:50]:
        TASK.row.model_validate(row)


def test_a_trained_version_names_the_language_of_texts_that_it_has_not_seen(version: Path) -> None:
    loaded = runner(version)
    answers = ranked(loaded, GERMAN, "Vous devez vous connecter pour voir cette page.")
    assert [answer[0]["label"] for answer in answers] == ["de", "fr"]
    assert sum(each["score"] for each in answers[0]) == pytest.approx(1)
    assert loaded.prepare(
        "r2", declare.TextInputs(input=[GERMAN]), declare.NoOptions()
    ).units == len(GERMAN)


def test_a_text_gets_the_same_scores_alone_and_in_a_batch(version: Path) -> None:
    loaded = runner(version)
    (alone,), (first, _) = ranked(loaded, GERMAN), ranked(loaded, GERMAN, "x " * 5_000)
    assert alone == first


def test_training_again_from_a_version_keeps_its_languages(
    material: Path, version: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    esperanto = [{"text": f"La lingvo numero {n} estas facila.", "label": "eo"} for n in range(8)]
    german = [{"text": f"Die Sprache Nummer {n} ist leicht.", "label": "de"} for n in range(8)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in esperanto + german))
    again = run.TrainingRequest(
        task=TASK.name,
        method="full",
        base=version,
        train_file=rows,
        output=tmp_path / "again",
        checkpoints=tmp_path / "checkpoints",
        hyperparameters={"epochs": 2, "batch_size": 4},
    )
    train(again, Recorder())
    labels = load(tmp_path / "again", TASK.architectures)[2]
    assert set(labels) == {*load(version, TASK.architectures)[2], "eo"}


def test_training_stops_when_it_is_told_to(material: Path, tmp_path: Path) -> None:
    with pytest.raises(run.Canceled):
        train(request(material, tmp_path), Recorder(stop_after=3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"text": "Guten Tag", "label": "de"}] * 5, "one language"),
        ([{"text": "Hi", "label": "en"}] * 5 + [{"text": "Hallo", "label": "de"}], "each needs 4"),
        ([{"text": "Hi"}], "not a row like"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused_with_the_reason(
    material: Path, tmp_path: Path, rows: list[dict[str, str]], reason: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    valid = request(material, tmp_path / "out")
    with pytest.raises(run.BadMaterial, match=reason):
        train(
            run.TrainingRequest(
                valid.task, valid.method, valid.base, file, valid.output, valid.checkpoints
            ),
            Recorder(),
        )


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    save(tmp_path, np.zeros((2, BUCKETS)), np.zeros(2), ["de", "fr"])
    config = tmp_path / "config.json"
    good = json.loads(config.read_text())
    for change in (
        {"labels": ["de"]},
        {"labels": "de"},
        {"buckets": 1},
        {"buckets": "many"},
        {"architectures": ["BertModel"]},
        {"auto_map": {}},
    ):
        config.write_text(json.dumps({**good, **change}))
        with pytest.raises(run.UnsupportedModel):
            runner(tmp_path)
    config.write_text(json.dumps(good))
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(run.UnsupportedModel):
        runner(tmp_path)


def test_the_initial_model_cannot_be_served(material: Path) -> None:
    with pytest.raises(run.UnsupportedModel, match="fine-tune it first"):
        runner(material / "initial")


def test_the_runner_refuses_texts_that_are_too_long(version: Path) -> None:
    long = declare.TextInputs(input=["a" * (MAX_CHARACTERS + 1)])
    with pytest.raises(run.RequestRefused, match="1 to 20,000 characters"):
        runner(version).prepare("r1", long, declare.NoOptions())


def test_a_request_is_one_text_or_many_and_costs_its_characters() -> None:
    for inputs in (GERMAN, [GERMAN]):
        body = declare.Body("application/json", json.dumps({"inputs": inputs}).encode())
        plan = read_inputs(body, "req_1", "languages")
        assert (plan.model, plan.inputs) == ("languages", declare.TextInputs(input=[GERMAN]))
        assert plan.units == len(GERMAN)
        results = [[{"label": "de", "score": 1.0}]]
        assert plan.renderer.whole(declare.Answer("stop", 0, 0, results=results)) == results


def test_an_unmodified_client_of_hugging_face_understands_requests_and_answers() -> None:
    hub = pytest.importorskip("huggingface_hub")
    helper = pytest.importorskip("huggingface_hub.inference._providers").get_provider_helper
    url = "https://assay.example/v1/tasks/language-identification/languages"
    prepared = helper("hf-inference", task="text-classification", model=url).prepare_request(
        inputs=GERMAN,
        parameters={"function_to_apply": None, "top_k": 1},
        headers={},
        model=url,
        api_key="key",
    )
    assert prepared.url == url
    plan = read_inputs(
        declare.Body("application/json", json.dumps(prepared.json).encode()), "req_1", "x"
    )
    scores = [{"label": "de", "score": 0.9}, {"label": "nl", "score": 0.1}]
    answer = plan.renderer.whole(declare.Answer("stop", 0, 0, results=[scores]))
    (best,) = hub.TextClassificationOutputElement.parse_obj_as_list(answer)[0]
    assert (best.label, best.score) == ("de", 0.9)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"inputs": []}', b'{"inputs": "a", "more": 1}'])
def test_a_malformed_request_is_refused(body: bytes) -> None:
    with pytest.raises(declare.RequestInvalid):
        read_inputs(declare.Body("application/json", body), "req_1", "languages")
