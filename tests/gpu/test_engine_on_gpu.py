"""The batching engine on a CUDA device: the same tokens as `generate` there, adapters included."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.workers.recording import ask

pytestmark = [pytest.mark.gpu, pytest.mark.torch]

LLAMA = ("LlamaForCausalLM",)

PROMPTS = ["The capital of France is", "def add(a, b):\n    return", "1, 2, 3," * 12]


def test_it_runs_on_the_device_and_says_what_generate_says(smollm2: Path) -> None:
    import torch
    import transformers

    from workers.engines.generation import GenerationEngine

    engine = GenerationEngine(smollm2, architectures=LLAMA, threads=1, dtype="float32")
    try:
        assert engine.device.type == "cuda"
        texts = [answer.text for answer in ask(engine, PROMPTS, max_tokens=32, temperature=0)]
        sampled = [ask(engine, PROMPTS[:1], max_tokens=8, seed=3)[0].text for _ in range(2)]
    finally:
        engine.close()
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    model.to("cuda")
    for prompt, text in zip(PROMPTS, texts, strict=True):
        inputs = tokenizer(prompt, return_tensors="pt").to("cuda")
        made = model.generate(**inputs, max_new_tokens=32, do_sample=False)
        new = made[0, inputs["input_ids"].shape[1] :]
        assert text == tokenizer.decode(new, skip_special_tokens=True)
    assert sampled[0] == sampled[1]


def test_closing_gives_the_memory_back(smollm2: Path) -> None:
    import torch

    from workers.engines.generation import GenerationEngine

    before = torch.cuda.memory_allocated()
    engine = GenerationEngine(smollm2, architectures=LLAMA, threads=1)
    ask(engine, PROMPTS, max_tokens=8)
    assert torch.cuda.memory_allocated() > before
    engine.close()
    assert torch.cuda.memory_allocated() - before < 16 * 2**20
