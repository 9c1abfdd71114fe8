"""The code that a model brings along: found wherever a loader looks, and tried within limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workers.engines.bounded import Limits
from workers.engines.model_code import CodeRejected, model_code

pytestmark = pytest.mark.torch

PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"


def nothing_is_known(digest: str) -> bool:
    return False


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
    return folder


def tokenizer(*patterns: str) -> dict[str, Any]:
    splits = [{"type": "Split", "pattern": {"Regex": each}} for each in patterns]
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
        "model": {"type": "BPE", "vocab": {"Regex": 0}},
    }


def test_templates_and_patterns_are_found_in_every_file_that_a_loader_reads(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        chat_template__jinja=PLAIN,
        tokenizer_config__json={"chat_template": [{"name": "tools", "template": PLAIN + "!"}]},
        tokenizer__json=tokenizer(r"\p{L}+", " +"),
        config__json={"architectures": []},
    )
    found = model_code(tmp_path)
    assert [(each.kind, each.path, each.shown) for each in found] == [
        ("chat template", "chat_template.jinja", PLAIN),
        ("tokenizer patterns", "tokenizer.json", "\\p{L}+\n +"),
        ("chat template", "tokenizer_config.json (tools)", PLAIN + "!"),
    ]


def test_what_a_database_cannot_hold_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, a__json={"chat_template": "a\0b\ud800"})
    (found,) = model_code(tmp_path)
    assert found.shown == "a\ufffdb?"


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"chat_template__jinja": LOOPS}, "longer than"),
        ({"chat_template__jinja": "{{ 'x' * 2000000000 }}"}, "MemoryError"),
        ({"chat_template__jinja": "x" * 300_000}, "300000 characters"),
        ({"tokenizer_config__json": {"chat_template": [1]}}, "malformed"),
        ({"tokenizer__json": tokenizer(" +", r"(\w+\s?)+$")}, "Pattern 2 of tokenizer.json"),
        ({"tokenizer__json": tokenizer(r"(b|bb)+$")}, "retry-limit-in-match"),
        ({"tokenizer__json": tokenizer(r"(")}, "does not compile"),
        ({"tokenizer__json": tokenizer("x" * 9_000)}, "9000 characters"),
        ({"tokenizer__json": tokenizer(*" " * 65)}, "65 patterns"),
        ({f"t{n}__jinja": PLAIN for n in range(17)}, "17 templates"),
    ],
    ids=[
        "loop",
        "memory",
        "long",
        "malformed",
        "words",
        "letters",
        "syntax",
        "wide",
        "many",
        "all",
    ],
)
def test_code_that_does_not_keep_to_its_limits_is_refused_with_the_reason(
    tmp_path: Path, files: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "longer than":  # Other code needs more time on a busy machine.
        monkeypatch.setattr("workers.engines.model_code.TRIAL", Limits(seconds=3.0))
    with pytest.raises(CodeRejected, match=reason):
        model_code(write(tmp_path, **files), passes=nothing_is_known)


def test_good_code_passes_and_known_code_is_not_tried(tmp_path: Path) -> None:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    good = write(
        tmp_path,
        chat_template__jinja=PLAIN + "{{ raise_exception('no system role') }}",
        tokenizer__json=tokenizer(PRETOKENIZE_REGEX),
    )
    assert len(model_code(good, passes=nothing_is_known)) == 2
    write(tmp_path, chat_template__jinja=LOOPS)
    (loops, _) = model_code(tmp_path)
    assert model_code(tmp_path, passes={loops.sha256}.__contains__)
