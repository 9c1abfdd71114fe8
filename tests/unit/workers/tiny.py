"""Small random models: of every allowed causal architecture, adapters for them, and an encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

# All 49,152 tokens of SmolLM2 would take nine tenths of each step's time.
VOCABULARY = 4096


def save_tiny(
    architecture: str, folder: Path, tokenizer: Path, vocabulary: int = VOCABULARY
) -> Path:
    """A random two-layer model, with the most frequent tokens of another's tokenizer."""
    torch.manual_seed(5)
    kind = getattr(transformers, architecture)
    model = kind(
        kind.config_class(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=256,
            sliding_window=None,
            tie_word_embeddings=True,
            initializer_range=0.5,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
    )
    model.save_pretrained(folder)
    _save_tokenizer(tokenizer, folder, vocabulary)
    return folder


def _save_tokenizer(source: Path, folder: Path, vocabulary: int) -> None:
    """Save a byte-pair tokenizer without the tokens that it learned last."""
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    pairs = content["model"]
    kept = {token: number for token, number in pairs["vocab"].items() if number < vocabulary}
    pairs["vocab"] = kept
    pairs["merges"] = [pair for pair in pairs["merges"] if "".join(pair) in kept]
    file.write_text(json.dumps(content))


def save_encoder(folder: Path, words: Sequence[str], **settings: Any) -> Path:
    """A BERT with one small layer and a vocabulary of a few words."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        **settings,
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def save_adapter(base: Path, folder: Path, seed: int) -> Path:
    """A random LoRA strong enough to change what the base says."""
    torch.manual_seed(seed)
    model: Any = transformers.LlamaForCausalLM.from_pretrained(base)
    tuned = peft.get_peft_model(
        model,
        peft.LoraConfig(
            task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False
        ),
    )
    tuned.save_pretrained(folder)
    return folder


def greedy(folder: Path, prompt: str, new_tokens: int) -> list[int]:
    """The new tokens of transformers' own greedy `generate`, in float32."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    inputs = tokenizer(prompt, return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, pad_token_id=2)
    return [int(token) for token in made[0, inputs["input_ids"].shape[1] :]]
