"""The converter: a GGUF becomes what engines load; safetensors stay what they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.workers.recording import Recorder
from workers.trainers.convert import convert, safetensors_summary
from workers.trainers.protocol import BadMaterial, Canceled

ARCHITECTURES = ("BertModel", "LlamaForCausalLM")
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.torch
def test_a_gguf_becomes_bfloat16_safetensors_with_tokenizer_and_template(smollm2: Path) -> None:
    config = json.loads((smollm2 / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    assert safetensors_summary(smollm2 / "model.safetensors") == (134_515_008, {"BF16"})
    assert "<|im_start|>" in (smollm2 / "chat_template.jinja").read_text()
    assert json.loads((smollm2 / "generation_config.json").read_text())["eos_token_id"] == 2
    assert sorted(path.suffix for path in smollm2.iterdir() if path.suffix != ".json") == [
        ".jinja",
        ".safetensors",
    ]


@pytest.mark.torch
def test_the_converted_model_answers_sensibly(smollm2: Path) -> None:
    from tests.unit.workers.tiny import greedy
    from workers.engines.loading import load_tokenizer

    words = load_tokenizer(smollm2).decode(greedy(smollm2, "The capital of France is", 4))
    assert "Paris" in words


def test_safetensors_are_copied_byte_for_byte_and_torch_is_not_loaded(
    minilm: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.unit.workers.recording import Recorder\n"
        "from workers.trainers.convert import convert\n"
        "notes = convert(Path(sys.argv[1]), Path(sys.argv[2]), ['BertModel'], Recorder())\n"
        "assert notes['architecture'] == 'BertModel', notes\n"
        "assert 22_000_000 < notes['parameters'] < 23_000_000, notes\n"
        "loaded = {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    output = tmp_path / "output"
    subprocess.run([sys.executable, "-c", code, str(minilm), str(output)], cwd=ROOT, check=True)
    assert sorted(path.name for path in output.iterdir()) == sorted(
        path.name for path in minilm.iterdir()
    )
    weights = "model.safetensors"
    assert (output / weights).read_bytes() == (minilm / weights).read_bytes()


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("config.json", {"auto_map": {"AutoModel": "model.Evil"}}, "auto_map"),
        ("config.json", {"architectures": ["EvilModel"]}, "EvilModel"),
        ("config.json", {"architectures": []}, "exactly one"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused(
    minilm: Path, tmp_path: Path, name: str, change: dict[str, object], reason: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(minilm / "model.safetensors", source)
    config = {**json.loads((minilm / name).read_text()), **change}
    (source / name).write_text(json.dumps(config))
    with pytest.raises(BadMaterial, match=reason):
        convert(source, tmp_path / "output", ARCHITECTURES, Recorder())


def test_neither_format_or_both_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no weights")
    with pytest.raises(BadMaterial, match="0 GGUF, 0 safetensors and 0 ONNX"):
        convert(tmp_path, tmp_path / "output", ARCHITECTURES, Recorder())
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(BadMaterial, match="1 GGUF, 1 safetensors and 0 ONNX"):
        convert(tmp_path, tmp_path / "output", ARCHITECTURES, Recorder())


@pytest.mark.parametrize("data", [b"", b"\xff" * 8 + b"{}", b"\x02" + b"\0" * 7 + b"[]"])
def test_a_broken_safetensors_header_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(BadMaterial, match=r"a\.safetensors"):
        safetensors_summary(tmp_path / "a.safetensors")


@pytest.mark.torch
def test_a_broken_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\0" * 64)
    with pytest.raises(BadMaterial, match=r"a\.gguf"):
        convert(tmp_path, tmp_path / "output", ARCHITECTURES, Recorder())


def test_it_stops_when_it_is_asked_to(minilm: Path, tmp_path: Path) -> None:
    with pytest.raises(Canceled):
        convert(minilm, tmp_path / "output", ARCHITECTURES, Recorder(stop_at=0))
