"""Serbian texts in Cyrillic and in Latin letters, and an untrained model that reads characters.

The pairs come from the message catalogs of Django (BSD-3-Clause) and django-allauth (MIT), which
Assay uses; volunteers translated them into both scripts. Most pairs have the same words, so the
task is a transliteration.
"""

from __future__ import annotations

import gettext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from assay_demo.data.materials import stable_hash

MAX_CHARACTERS = 40
MAX_TOKENS = 64
# Number of test texts, about a fifth.
_HELDOUT_OF_256 = 48
_FROM, _TO = "sr", "sr_Latn"
_PACKAGES = ("django", "allauth")
_SEED = 17
# The key of a plural in `GNUTranslations` is a pair of the message and its number.
_Message = str | tuple[str, int]
Pair = dict[str, str]


def serbian_pairs() -> tuple[list[Pair], list[Pair]]:
    """Return training and test rows {"source", "target"} of one line each.

    No text is in both parts, regardless of case and spaces, and each source occurs once. Order and
    choice depend only on the catalogs.
    """
    sources: set[str] = set()
    sides: dict[bool, list[Pair]] = {True: [], False: []}
    for catalog in _catalogs():
        other = catalog.parents[2] / _TO / "LC_MESSAGES" / catalog.name
        theirs = _messages(other) if other.is_file() else {}
        for message, source in _messages(catalog).items():
            target = theirs.get(message, "")
            key = _normal(source)
            if key not in sources and _fits(source) and _fits(target):
                sources.add(key)
                heldout = stable_hash(_normal(target))[0] < _HELDOUT_OF_256
                sides[heldout].append({"source": source, "target": target})
    train, test = (
        sorted(sides[heldout], key=lambda row: stable_hash(row["source"]))
        for heldout in (False, True)
    )
    return train, test


def untrained_writer(folder: Path) -> Path:
    """Write a small Marian model with random weights, ready for intake; return `folder`.

    Each character of the training texts is a token.
    """
    import torch
    import transformers

    tokenizer = _characters(serbian_pairs()[0])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(_SEED)
    config = transformers.MarianConfig(
        vocab_size=len(tokenizer),
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        activation_function="relu",
        max_position_embeddings=MAX_TOKENS,
        scale_embedding=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        forced_eos_token_id=None,
    )
    transformers.MarianMTModel(config).save_pretrained(folder)
    (folder / "README.md").write_text(
        "# Small Marian, untrained\n\n"
        "Random weights (seed 17) in the architecture of Marian, made for a demonstration.\n"
        "It reads and writes characters. It knows nothing until it is trained.\n"
    )
    return folder


def _characters(rows: list[Pair]) -> Any:
    """Return a tokenizer whose tokens are the characters of the rows."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    characters = sorted({each for row in rows for text in row.values() for each in text})
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary = [*special.values(), *characters]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, **special
    )


def _catalogs() -> list[Path]:
    paths: list[Path] = []
    for package in _PACKAGES:
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None  # noqa: S101, PT018 (Assay needs it)
        paths += sorted(Path(spec.origin).parent.rglob(f"{_FROM}/LC_MESSAGES/*.mo"))
    return paths


def _messages(catalog: Path) -> dict[_Message, str]:
    with catalog.open("rb") as stream:
        messages: dict[_Message, str] = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
    return messages


def _fits(text: str) -> bool:
    return 0 < len(text) <= MAX_CHARACTERS and text.isprintable() and bool(text.strip())


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
