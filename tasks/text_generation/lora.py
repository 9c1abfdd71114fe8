"""Tune a language model on the answers to give, by an adapter (TRL's SFTTrainer)."""

from __future__ import annotations

from contextlib import closing

from trl import SFTConfig

from tasks.text_generation.adapters import fit_adapter, load_adaptable, lora
from tasks.text_generation.conversations import (
    ConversationReader,
    read_conversations,
    require_enough,
)
from tasks.text_generation.schema import LoraHyperparameters
from workers.trainers.protocol import Progress, TrainingRequest, TrainingResult
from workers.trainers.tokenized import AnswerTrainer
from workers.trainers.training import parse_settings


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Fine-tune; the loss counts the tokens of the last answer alone. Delivers the adapter.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` said so.
    """
    settings = parse_settings(LoraHyperparameters, request.hyperparameters)
    model, tokenizer = load_adaptable(request.base, settings)
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
        adapter=lora(settings),
        noun="conversations",
        parameters={"rows": len(rows), "rows_left_out": fitted.left_out},
        rows_cut=fitted.shortened,
        options={"label_names": ["labels"]},
    )
