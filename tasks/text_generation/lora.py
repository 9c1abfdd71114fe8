"""Tune a language model on example answers, with an adapter (TRL's SFTTrainer)."""

from __future__ import annotations

from contextlib import closing

from trl import SFTConfig

from assay.plugins import run
from tasks.text_generation.adapters import fit_adapter, load_adaptable, lora
from tasks.text_generation.conversations import (
    ConversationReader,
    read_conversations,
    require_enough,
)
from tasks.text_generation.schema import LoraHyperparameters


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Fine-tune on the tokens of each last answer only; save the adapter.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(LoraHyperparameters, request.hyperparameters)
    model, tokenizer = load_adaptable(request.base, settings)
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
        adapter=lora(settings),
        noun="conversations",
        parameters={"rows": len(rows), "rows_left_out": fitted.left_out},
        rows_cut=fitted.shortened,
        options={"label_names": ["labels"]},
    )
