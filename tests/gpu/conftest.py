"""The model that tests on a GPU share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2, converted from the wheel's GGUF; skips where there is no device."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    from assay_demo.data.materials import fetch
    from tests.unit.workers.recording import Recorder
    from workers.trainers.convert import convert

    output = tmp_path_factory.mktemp("smollm2") / "base"
    source = fetch(names=["smollm2"])["smollm2"].parent
    convert(source, output, ("LlamaForCausalLM",), Recorder())
    return output
