"""A byte-level BPE tokenizer learned from data (Sennrich et al. 2016, arXiv:1508.07909)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from assay.plugins import run

END = "<|endoftext|>"
PADDING = "<|padding|>"


def train_tokenizer(
    texts: Iterable[str], size: int, max_length: int, progress: run.Progress
) -> transformers.PreTrainedTokenizerFast:
    """Learn a tokenizer of at most `size` tokens, including those for filling in the middle.

    Raises:
        Canceled: `progress` requests a stop.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, PADDING, *run.FILL_TOKENS[0]],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_until_stopped(texts, progress), trainer)
    result: Any = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PADDING,
        additional_special_tokens=list(run.FILL_TOKENS[0]),
        model_max_length=max_length,
    )
    return result


def _until_stopped(texts: Iterable[str], progress: run.Progress) -> Iterator[str]:
    for text in texts:
        if progress.should_stop():
            raise run.Canceled
        yield text
