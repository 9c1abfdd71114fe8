"""A diffusers pipeline comes in as an index with a folder for each part, and as nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.intake.checks import Limits, check_delivery
from tests.unit.registry.objects import gguf, safetensors

LIMITS = Limits(max_bytes=10_000_000)
INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def deliver(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    write(folder, "model_index.json", json.dumps({**INDEX, **(changes or {})}))
    write(folder, "scheduler/scheduler_config.json", "{}")
    write(folder, "tokenizer/vocab.json", '{"a": 0}')
    write(folder, "tokenizer/merges.txt", "#version: 0.2\n")
    write(folder, "tokenizer/tokenizer_config.json", "{}")
    for part in ("text_encoder", "unet", "vae"):
        write(folder, f"{part}/config.json", "{}")
        (folder / part / "model.safetensors").write_bytes(safetensors())
    return folder


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def failed(folder: Path) -> list[str]:
    return [each.detail for each in check_delivery(folder, LIMITS) if not each.passed]


def test_a_pipeline_with_all_its_parts_comes_in(tmp_path: Path) -> None:
    findings = check_delivery(deliver(tmp_path), LIMITS)
    assert all(each.passed for each in findings)
    assert findings[-1].detail == "A diffusers pipeline of 5 parts, 3 safetensors file(s)."


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_encoder": ["transformers", "CLIPVisionModel"]}, "image_encoder, which was not"),
        ({"vae": [None, None]}, "the folder vae, which model_index.json does not name"),
        ({"vae": ["my_module", "Vae"]}, "my_module.Vae as its vae"),
        ({"vae": ["diffusers", "a.b"]}, "diffusers.a.b as its vae"),
        ({"vae": ["diffusers"]}, "must define vae as a library and a class"),
        ({"vae": {"diffusers": "AutoencoderKL"}}, "must define vae as a library and a class"),
        ({"../vae": ["diffusers", "AutoencoderKL"]}, "not a plain folder name"),
        ({"/etc": ["diffusers", "AutoencoderKL"]}, "not a plain folder name"),
        ({"_class_name": ["pipeline.py", "Mine"]}, "one pipeline class"),
        ({"_class_name": None}, "one pipeline class"),
        ({"vae": [1, 2]}, "must define vae as a library and a class"),
    ],
)
def test_an_index_that_names_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    (detail,) = failed(deliver(tmp_path, changes))
    assert reason in detail


@pytest.mark.parametrize("content", ["[]", '"text"', "7", "null"])
def test_an_index_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    deliver(tmp_path)
    (tmp_path / "model_index.json").write_text(content)
    assert failed(tmp_path) == ["model_index.json is not a JSON object."]


def test_a_pipeline_is_not_two_models_at_once(tmp_path: Path) -> None:
    write(deliver(tmp_path), "config.json", "{}")
    (detail,) = failed(tmp_path)
    assert "unclear which model it is" in detail
    (tmp_path / "config.json").unlink()
    (tmp_path / "model.gguf").write_bytes(gguf())
    assert any("unclear which model it is" in detail for detail in failed(tmp_path))


def test_weights_next_to_the_index_are_refused(tmp_path: Path) -> None:
    (deliver(tmp_path) / "model.safetensors").write_bytes(safetensors())
    (detail,) = failed(tmp_path)
    assert "lie in the folders of parts" in detail


def test_shards_are_checked_in_the_folder_of_their_part(tmp_path: Path) -> None:
    deliver(tmp_path)
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    write(tmp_path, index, '{"weight_map": {"a": "model.safetensors"}}')
    assert failed(tmp_path) == []
    write(tmp_path, index, '{"weight_map": {"a": "../vae/model.safetensors"}}')
    assert "unsafe file" in failed(tmp_path)[0]
    write(tmp_path, index, '{"weight_map": {"a": "other.safetensors"}}')
    assert "was not delivered" in failed(tmp_path)[0]


def test_a_model_of_hundreds_of_shards_fits(tmp_path: Path) -> None:
    write(tmp_path, "config.json", "{}")
    for number in range(500):
        (tmp_path / f"model-{number:05}-of-00500.safetensors").write_bytes(safetensors())
    assert failed(tmp_path) == []
    for number in range(12):
        write(tmp_path, f"notes-{number}.txt", "x")
    assert "at most 512 files" in failed(tmp_path)[0]


def test_templates_and_patterns_of_a_parts_folder_are_found(tmp_path: Path) -> None:
    from workers.engines.model_code import model_code

    deliver(tmp_path)
    write(tmp_path, "tokenizer/tokenizer_config.json", '{"chat_template": "{{ messages }}"}')
    write(
        tmp_path,
        "tokenizer/tokenizer.json",
        '{"pre_tokenizer": {"pattern": {"Regex": "[a-z]+"}}}',
    )
    assert [(each.kind, each.path) for each in model_code(tmp_path)] == [
        ("tokenizer patterns", "tokenizer/tokenizer.json"),
        ("chat template", "tokenizer/tokenizer_config.json"),
    ]
