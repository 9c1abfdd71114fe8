"""Tune a soft prompt (Lester et al. 2021, arXiv:2104.08691) on the answers to give."""

from __future__ import annotations

from contextlib import closing

import peft
from trl import SFTConfig

from tasks.text_generation.adapters import fit_adapter, load_adaptable
from tasks.text_generation.conversations import (
    ConversationReader,
    read_conversations,
    require_enough,
)
from tasks.text_generation.schema import PromptTuningHyperparameters
from workers.trainers.protocol import Progress, TrainingRequest, TrainingResult
from workers.trainers.tokenized import AnswerTrainer
from workers.trainers.training import parse_settings


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Learn embeddings that stand before each prompt; the base stays unchanged.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` said so.
    """
    settings = parse_settings(PromptTuningHyperparameters, request.hyperparameters)
    model, tokenizer = load_adaptable(request.base, settings, settings.virtual_tokens)
    rows = read_conversations(request.train_file)
    with closing(ConversationReader(tokenizer)) as reader:
        fitted = reader.examples(rows, settings.max_length)
    require_enough(fitted, len(rows), settings.max_length, progress)
    return fit_adapter(
        request,
        progress,
        kind=AnswerTrainer,
        schema=SFTConfig,
        model=model,
        tokenizer=tokenizer,
        examples=[example.learned() for example in fitted.examples],
        settings=settings,
        adapter=peft.PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=settings.virtual_tokens,
            # Embeddings of tokens of the vocabulary: random ones learn far more slowly.
            prompt_tuning_init="SAMPLE_VOCAB",
        ),
        noun="conversations",
        parameters={"rows": len(rows), "rows_left_out": fitted.left_out},
        rows_cut=fitted.shortened,
        options={"label_names": ["labels"]},
    )
