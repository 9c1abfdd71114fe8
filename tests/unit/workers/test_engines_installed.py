"""Engines of other projects that a worker can start, and the ones that it must not."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from workers.engines.servers.installed import VLLM_LEAST, new_enough, vllm_version


@pytest.mark.parametrize(
    ("version", "least", "fits"),
    [
        ("0.32.0", VLLM_LEAST, True),
        ("0.33.1+cpu", VLLM_LEAST, True),
        ("1.0", VLLM_LEAST, True),
        ("0.31.2", VLLM_LEAST, False),
        ("dev", VLLM_LEAST, False),
        ("0.5.23.post1", (0, 5, 23), True),
        ("0.5.24.dev7", (0, 5, 23), True),
        ("0.5.23rc1", (0, 5, 23), False),
        ("0.5.9", (0, 5, 23), False),
        ("0.5", (0, 5, 23), False),
    ],
)
def test_versions_with_known_faults_are_refused(
    version: str, least: tuple[int, ...], fits: bool
) -> None:
    assert new_enough(version, least) is fits


def test_the_version_of_a_server_is_that_of_its_environment(tmp_path: Path) -> None:
    assert vllm_version("") == ""
    assert vllm_version(str(tmp_path / "missing")) == ""
    for version, found in (("0.33.0", "0.33.0"), ("0.30.0", "")):
        python = tmp_path / version
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(stat.S_IRWXU)
        assert vllm_version(str(python)) == found


@pytest.mark.torch
def test_answers_of_two_models_differ_by_their_probabilities(tmp_path: Path) -> None:
    from workers.engines.servers.vllm import difference, digest_of

    one = [(5, -1.0), (7, -2.0)]
    assert difference(one, one) == 0
    assert difference(one, [(5, -1.0), (7, -2.5)]) == 0.5
    assert difference(one, [(5, -1.0), (8, -2.0)]) == float("inf")
    (tmp_path / "a").write_bytes(b"1")
    before = digest_of(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_of(tmp_path) != before


@pytest.mark.torch
def test_prompts_share_work_within_one_department_alone() -> None:
    from types import SimpleNamespace

    from workers.engines.servers.vllm_dialect import VllmDialect

    one, other = (VllmDialect(SimpleNamespace(), frozenset({2})) for _ in range(2))  # type: ignore[arg-type]
    row: Any = SimpleNamespace(adapter=None, request_id="r")
    salts = [one.salt(row, scope) for scope in ("a", "a", "b", "")]
    assert salts[0] == salts[1]
    assert len(set(salts)) == 3
    assert other.salt(row, "a") != salts[0]
