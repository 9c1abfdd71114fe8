"""Real small models for tests marked `torch`; nothing here imports torch before a test needs it."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assay_demo.data.materials import DEFAULT_FOLDER, fetch
from tests.unit.registry.office import office, office_built
from tests.unit.workers.recording import Recorder

__all__ = ["office", "office_built"]

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def progress() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as delivered."""
    return fetch(names=["minilm"])["minilm"]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, converted once by the converter as it is now."""
    code = (ROOT / "workers" / "trainers" / "convert.py").read_bytes()
    folder = DEFAULT_FOLDER / f"smollm2-{hashlib.sha256(code).hexdigest()[:12]}"
    DEFAULT_FOLDER.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        # Test processes that run side by side convert it once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _converted(folder)
    return folder


def _converted(folder: Path) -> None:
    if not folder.is_dir():
        from workers.trainers.convert import convert

        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        convert(
            fetch(names=["smollm2"])["smollm2"].parent,
            partial,
            ("LlamaForCausalLM",),
            Recorder(),
        )
        partial.rename(folder)


@pytest.fixture(scope="session")
def tiny(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with two small random layers and part of SmolLM2's tokenizer: milliseconds a step."""
    from tests.unit.workers.tiny import save_tiny

    return save_tiny("LlamaForCausalLM", tmp_path_factory.mktemp("tiny"), smollm2)


@pytest.fixture(scope="session")
def tiny_whole(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny`, with the whole tokenizer."""
    from tests.unit.workers.tiny import save_tiny

    return save_tiny("LlamaForCausalLM", tmp_path_factory.mktemp("whole"), smollm2, 49_152)


@pytest.fixture
def engine(tiny: Path) -> Iterator[Any]:
    from workers.engines.generation import GenerationEngine

    engine = GenerationEngine(
        tiny, architectures=("LlamaForCausalLM",), threads=1, dtype="float32", max_waiting=4
    )
    yield engine
    engine.close()
