"""Tune a soft prompt (Lester et al. 2021, arXiv:2104.08691) on example answers."""

from __future__ import annotations

from contextlib import closing

import peft
from trl import SFTConfig

from assay.plugins import run
from tasks.text_generation.adapters import fit_adapter, load_adaptable
from tasks.text_generation.conversations import (
    ConversationReader,
    read_conversations,
    require_enough,
)
from tasks.text_generation.schema import PromptTuningHyperparameters


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Learn embeddings that precede each prompt; the base stays unchanged.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(PromptTuningHyperparameters, request.hyperparameters)
    model, tokenizer = load_adaptable(request.base, settings, settings.virtual_tokens)
    rows = read_conversations(request.train_file)
    with closing(ConversationReader(tokenizer)) as reader:
        fitted = reader.examples(rows, settings.max_length)
    require_enough(fitted, len(rows), settings.max_length, progress)
    return fit_adapter(
        request,
        progress,
        kind=run.AnswerTrainer,
        schema=SFTConfig,
        model=model,
        tokenizer=tokenizer,
        examples=[example.learned() for example in fitted.examples],
        settings=settings,
        adapter=peft.PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=settings.virtual_tokens,
            # Start from embeddings of the vocabulary: random ones learn far more slowly.
            prompt_tuning_init="SAMPLE_VOCAB",
        ),
        noun="conversations",
        parameters={"rows": len(rows), "rows_left_out": fitted.left_out},
        rows_cut=fitted.shortened,
        options={"label_names": ["labels"]},
    )
