"""A small Llama and adapters that vLLM serves on a CPU. `./test --engines` installs vLLM."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VLLM_PYTHON = os.environ.get("ASSAY_VLLM_PYTHON", "")


@pytest.fixture(autouse=True)
def _vllm_is_installed() -> None:
    if not VLLM_PYTHON:
        pytest.skip("./test --engines installs vLLM")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with heads of a size that vLLM computes on a CPU."""
    import torch
    import transformers

    from assay_demo.data.materials import fetch
    from workers.trainers.convert import tokenizer_of

    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=49_152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    folder = tmp_path_factory.mktemp("vllm") / "base"
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer_of(fetch(names=["smollm2"])["smollm2"], 512).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapters(base: Path) -> dict[str, Path]:
    from tests.unit.workers.tiny import save_adapter

    return {name: save_adapter(base, base.parent / name, seed) for seed, name in enumerate("abc")}
