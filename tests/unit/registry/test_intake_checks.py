"""Intake decides by content first, then by name."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from registry.intake.checks import Finding, Limits, check_delivery, check_file, check_names
from tests.unit.registry.objects import gguf, gguf_string, safetensors

# Two pieces, and the settings of a trainer.
PIECES = b"\x0a\x05\x0a\x03the" + b"\x0a\x83\x01\x0a\x80\x01" + b"x" * 128 + b"\x12\x02\x18\x05"
LIMITS = Limits(max_bytes=10_000_000)


def check(tmp_path: Path, name: str, content: bytes) -> Finding:
    (tmp_path / "file").write_bytes(content)
    return check_file(tmp_path / "file", name)


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["efficientnet_lite0.pth", "model.safetensors", "notes.txt"])
@pytest.mark.parametrize(
    "content", [zipped("archive/data.pkl", "archive/data/0"), pickle.dumps({"a": 1})]
)
def test_a_pickle_is_refused_under_any_name(tmp_path: Path, name: str, content: bytes) -> None:
    finding = check(tmp_path, name, content)
    assert not finding.passed
    assert finding.detail == (
        f"{name} is a Python pickle: loading it can run code. "
        "Convert it to safetensors and submit that."
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.zip", zipped("a.txt"), "a zip archive"),
        ("config.json", b"\x7fELF\x02", "a program"),
        ("README.md", b"#!/bin/sh\n", "a script"),
        ("modeling.py", b"import os\n", "not accepted"),
        ("model.bin", b"\0\0\0\0", "not accepted"),
        ("notes.txt", b"\xff\xfe", "not UTF-8"),
        ("notes.txt", b"a\0b", "NUL"),
        ("config.json", b"{", "cannot be read"),
        ("config.json", b"[" * 100_000, "cannot be read"),
        ("config.json", b'{"a": 1, "a": 2}', "names the same member twice"),
        ("config.json", b'{"auto_map": {"AutoModel": "modeling.Model"}}', "auto_map"),
        ("config.json", b'{"a": [{"trust_remote_code": true}]}', "trust_remote_code"),
        ("model_index.json", b'{"custom_pipelines": {}}', "custom_pipelines"),
        ("spiece.model", b"hello", "SentencePiece"),
        ("spiece.model", b"", "SentencePiece"),
        ("spiece.model", PIECES[:-1], "cut off"),
        ("spiece.model", PIECES + b"\x0a\xff\xff\xff\xff\x0f", "cut off"),
        ("spiece.model", b"\x12\x02\x18\x05", "SentencePiece"),
        ("spiece.model", PIECES + zipped("model.safetensors"), "SentencePiece"),
        ("config.json", b"[" + b"[]," * 4_000_000 + b"[]]", "more than 8,000,000 values"),
    ],
)
def test_a_file_that_may_not_come_in_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    finding = check(tmp_path, name, content)
    assert not finding.passed
    assert finding.detail.startswith(f"{name} was rejected: ")
    assert reason in finding.detail


def test_a_token_named_like_a_setting_is_only_a_token(tmp_path: Path) -> None:
    assert check(tmp_path, "vocab.json", b'{"auto_map": 17}').passed


@pytest.mark.parametrize("key", ["weight_map", "fast_tokenizer_files"])
@pytest.mark.parametrize("name", ["/elsewhere/a.safetensors", "../a.safetensors", "absent", 3])
def test_names_of_files_that_were_not_delivered_are_refused(
    tmp_path: Path, key: str, name: Any
) -> None:
    named = {"w": name} if key == "weight_map" else [name]
    finding = check(tmp_path, "model.safetensors.index.json", json.dumps({key: named}).encode())
    assert not finding.passed
    assert f'its "{key}"' in finding.detail


def test_an_index_of_what_was_delivered_passes(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors())
    assert check(tmp_path, "index.json", b'{"weight_map": {"w": "a.safetensors"}}').passed
    assert check(tmp_path, "vocab.json", b'{"weight_map": 17}').passed


def tensor(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0\0", "too short"),
        (safetensors(length=200_000_000), "its header claims 200000000 bytes"),
        (safetensors(length=2**63), "its header claims"),
        (safetensors(b" {}"), "does not begin with a JSON object"),
        (safetensors({}), "it names 0 tensors"),
        (safetensors(tensor(dtype="PICKLE")), "unknown dtype"),
        (safetensors(tensor(dtype=["F32"])), "unknown dtype"),
        (safetensors(tensor(shape=[2, -2])), "malformed shape"),
        (safetensors(tensor(shape=[True, 4])), "malformed shape"),
        (safetensors(tensor(shape=[2, 3])), "does not fill"),
        (safetensors(tensor(data_offsets=[16, 0])), "malformed offsets"),
        (safetensors(tensor(data_offsets=[4, 20]), b"\0" * 20), "overlap or leave a gap"),
        (safetensors({**tensor(), "v": tensor()["w"]}), "overlap or leave a gap"),
        (safetensors(tensor(), b"\0" * 17), "its tensors end at byte 16 of 17"),
        (safetensors(tensor(), b"\0" * 8), "its tensors end at byte 16 of 8"),
        (safetensors({**tensor(), "__metadata__": {"a": 1}}), "__metadata__"),
        (safetensors({"w": 3}), "malformed"),
        (safetensors(b'{"w": {}, "w": {}}'), "names the same member twice"),
    ],
)
def test_a_malicious_safetensors_header_is_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    finding = check(tmp_path, "model.safetensors", content)
    assert not finding.passed
    assert reason in finding.detail


def test_the_safetensors_library_reads_what_passes(tmp_path: Path) -> None:
    assert check(tmp_path, "model.safetensors", safetensors()).passed
    from safetensors import safe_open

    with safe_open(str(tmp_path / "file"), framework="numpy") as file:
        assert list(file.keys()) == ["weight"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gguf(version=1), "version 1"),
        (gguf(tensors=2**40), "more than are allowed"),
        (gguf(keys=2**40), "more than are allowed"),
        (gguf(tensors=2), "dimensions"),
        (gguf(offset=7), "malformed shape or offset"),
        (gguf(offset=2**62), "past the end"),
        (gguf(data=b""), "past the end"),
        (gguf()[:40], "in the middle of its header"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 2**60), "text of"),
        (
            b"GGUF"
            + struct.pack("<IQQ", 3, 1, 1)
            + gguf_string("tokens")
            + struct.pack("<IIQ", 9, 9, 2),
            "other than numbers",
        ),
    ],
)
def test_a_malicious_gguf_header_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    finding = check(tmp_path, "model.gguf", content)
    assert not finding.passed
    assert reason in finding.detail


def test_a_gguf_file_is_read_to_its_architecture(tmp_path: Path) -> None:
    finding = check(tmp_path, "model.gguf", gguf())
    assert finding.passed
    assert finding.detail == "model.gguf: GGUF version 3, architecture llama, 1 tensors."


def failed(folder: Path) -> list[str]:
    return [each.detail for each in check_delivery(folder, LIMITS) if not each.passed]


def test_a_delivery_needs_weights_and_their_config(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    assert failed(tmp_path) == [
        "A delivery holds either one GGUF file, safetensors or ONNX files with their config.json, "
        "or a diffusers pipeline: a model_index.json with a folder for each part; or "
        "the hosted.json of a hosted model alone."
    ]
    (tmp_path / "config.json").write_bytes(b"{}")
    assert failed(tmp_path) == []
    (tmp_path / "model.gguf").write_bytes(gguf())
    assert len(failed(tmp_path)) == 1


def test_an_adapter_is_not_a_base(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "adapter_config.json").write_bytes(b'{"base_model_name_or_path": "/elsewhere"}')
    (reason,) = failed(tmp_path)
    assert "an adapter is not a base. Name its base version" in reason


def test_links_and_confusable_names_fail_a_delivery(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "Config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").symlink_to("/etc/passwd")
    details = " ".join(failed(tmp_path))
    assert "differs only in letter case" in details
    assert "model.safetensors is a symbolic link" in details
    assert check_names(["../../etc/passwd"])[0].detail.startswith("The file name")


def test_a_delivery_over_its_bounds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x" * 100)
    findings = check_delivery(tmp_path, Limits(max_bytes=99))
    assert [each.check for each in findings if not each.passed] == ["size"]
    assert not any(each.check == "format" for each in findings)


def test_a_sentencepiece_model_is_read_to_its_end(tmp_path: Path) -> None:
    finding = check(tmp_path, "spiece.model", PIECES)
    assert (finding.passed, "SentencePiece model" in finding.detail) == (True, True)
