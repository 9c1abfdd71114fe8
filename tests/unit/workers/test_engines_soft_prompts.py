"""Soft prompts: the engine says what PEFT's model says, token for token, in any batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.unit.workers.recording import Answer, ask, prompted
from workers.run.events import SilentProgress

pytestmark = pytest.mark.torch

PROMPTS = ["The price of gold", "The price of gold today and tomorrow is", "A"]
VIRTUAL = 7


@pytest.fixture(scope="session")
def soft(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_soft(tiny, tmp_path_factory.mktemp("soft"), seed=3)


def save_soft(base: Path, folder: Path, seed: int) -> Path:
    """Random embeddings, strong enough to change what the base says."""
    import peft
    import torch
    import transformers

    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM.from_pretrained(base)
    tuned = peft.get_peft_model(
        model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL)
    )
    tuned.save_pretrained(folder)
    return folder


def peft_says(base: Path, adapter: Path, prompt: str, new_tokens: int) -> list[int]:
    """The likeliest tokens by PEFT's own model, in float32, which reads all tokens at each step.

    Its `generate` with a cache departs from that after the first token, in PEFT 0.21 with
    transformers 5.24.
    """
    import peft
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = peft.PeftModelForCausalLM.from_pretrained(model, adapter).eval()
    tokens = tokenizer(prompt, return_tensors="pt")["input_ids"]
    given = tokens.shape[1]
    with torch.inference_mode():
        for _ in range(new_tokens):
            newest = tuned(input_ids=tokens).logits[:, -1:].argmax(dim=-1)
            tokens = torch.cat([tokens, newest], dim=1)
    return [int(token) for token in tokens[0, given:]]


def says(engine: Any, prompts: list[str], *names: str | None) -> list[str]:
    answers = ask(engine, prompts, adapters=names, max_tokens=12, temperature=0)
    return [answer.text for answer in answers]


def test_greedy_answers_are_pefts_token_for_token(engine: Any, tiny: Path, soft: Path) -> None:
    engine.add_adapter("soft", soft)
    answers = ask(engine, PROMPTS, adapters=["soft"] * 3, max_tokens=12, temperature=0)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        tokens = peft_says(tiny, soft, prompt, 12)
        assert answer.done().completion_tokens == len(tokens)
        assert answer.text == engine._tokenizer.decode(tokens, skip_special_tokens=True)
    assert says(engine, PROMPTS, None, None, None) != [answer.text for answer in answers]


def test_soft_prompts_lora_and_base_share_a_batch_and_say_what_they_say_alone(
    engine: Any, tiny: Path, soft: Path, tmp_path: Path
) -> None:
    from tests.unit.workers.tiny import save_adapter

    engine.add_adapter("soft", soft)
    engine.add_adapter("other", save_soft(tiny, tmp_path / "other", seed=4))
    engine.add_adapter("lora", save_adapter(tiny, tmp_path / "lora", seed=1))
    names = ["soft", None, "lora", "other"]  # No more than may wait.
    prompts = [PROMPTS[number % 3] for number in range(4)]
    alone = [says(engine, [prompt], name)[0] for prompt, name in zip(prompts, names, strict=True)]
    assert says(engine, prompts, *names) == alone
    engine.remove_adapter("soft")
    assert says(engine, prompts[1:4], *names[1:4]) == alone[1:4]


def test_virtual_tokens_are_counted_and_leave_less_room(engine: Any, soft: Path) -> None:
    from workers.engines.protocol import RequestRefused

    engine.add_adapter("soft", soft)
    bare, tuned = ask(engine, ["A", "A"], adapters=[None, "soft"], max_tokens=1, temperature=0)
    assert tuned.done().prompt_tokens - bare.done().prompt_tokens == VIRTUAL
    room = engine.max_context - bare.done().prompt_tokens
    with pytest.raises(RequestRefused, match="must not exceed"):
        engine.submit(prompted("r", {"prompt": "A"}, {"max_tokens": room}, "soft"), Answer())


def test_a_delivered_soft_prompt_is_kept_with_its_length(soft: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from workers.trainers.delivered_adapter import keep_adapter
    from workers.trainers.protocol import BadMaterial

    delivered = Path(shutil.copytree(soft, tmp_path / "delivered"))
    kept = keep_adapter(delivered, tmp_path / "kept", SilentProgress(Event()))
    assert kept["virtual_tokens"] == VIRTUAL
    path = delivered / "adapter_model.safetensors"
    (embeddings,) = load_file(path).values()
    save_file({"lm_head.weight": embeddings}, path)
    with pytest.raises(BadMaterial, match="does not hold 1 to 256"):
        keep_adapter(delivered, tmp_path / "other", SilentProgress(Event()))


def test_what_is_no_soft_prompt_for_this_base_is_refused(
    engine: Any, soft: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    config = json.loads((soft / "adapter_config.json").read_text())
    wrong = {
        "width": {"prompt_embeddings": torch.zeros(4, 31)},
        "many": {"prompt_embeddings": torch.zeros(257, 32)},
        "more": {"prompt_embeddings": torch.zeros(4, 32), "lm_head": torch.zeros(2)},
        "numbers": {"prompt_embeddings": torch.full((4, 32), float("nan"))},
        "whole": {"prompt_embeddings": torch.zeros(4, 32, dtype=torch.int64)},
    }
    for name, tensors in wrong.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "adapter_model.safetensors")
        with pytest.raises(ValueError, match=name):
            engine.add_adapter(name, folder)
    for kind in ("PREFIX_TUNING", "P_TUNING"):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({**config, "peft_type": kind}))
        (folder / "adapter_model.safetensors").write_bytes(
            (soft / "adapter_model.safetensors").read_bytes()
        )
        with pytest.raises(ValueError, match="not LORA"):
            engine.add_adapter(kind, folder)
