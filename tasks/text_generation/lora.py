"""Tune a language model on the answers to give, by an adapter (TRL's SFTTrainer)."""

from __future__ import annotations

from contextlib import closing

from trl import SFTConfig

from tasks.text_generation.adapters import MIN_ROWS, fit_adapter, load_adaptable
from tasks.text_generation.conversations import ConversationReader, Fitted, read_conversations
from tasks.text_generation.schema import LoraHyperparameters
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.tokenized import AnswerTrainer
from workers.trainers.training import parse_settings

# Of the conversations, the part that must fit into `max_length`.
LEAST_SHARE = 0.5


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Fine-tune; the loss counts the tokens of the last answer alone. Delivers the adapter.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Cancelled: `progress` said so.
    """
    settings = parse_settings(LoraHyperparameters, request.hyperparameters)
    model, tokenizer = load_adaptable(request.base, settings)
    rows = read_conversations(request.train_file)
    with closing(ConversationReader(tokenizer)) as reader:
        fitted = reader.examples(rows, settings.max_length)
    _require_enough(fitted, len(rows), settings.max_length, progress)
    return fit_adapter(
        request,
        progress,
        kind=AnswerTrainer,
        schema=SFTConfig,
        model=model,
        tokenizer=tokenizer,
        examples=[example.learned() for example in fitted.examples],
        settings=settings,
        noun="conversations",
        parameters={
            "rows": len(rows),
            "rows_left_out": fitted.left_out,
            "rows_shortened": fitted.shortened,
        },
        options={"label_names": ["labels"]},
    )


def _require_enough(fitted: Fitted, rows: int, max_length: int, progress: Progress) -> None:
    """Warn of what does not fit. Raises BadMaterial when too little of the data does."""
    if rows < MIN_ROWS:
        raise BadMaterial(f"There are {rows} conversations; at least {MIN_ROWS} are needed.")
    said, kept = fitted.words(max_length), len(fitted.examples)
    if kept < max(MIN_ROWS, rows * LEAST_SHARE):
        raise BadMaterial(
            f"Only {kept} of {rows} conversations fit into max_length {max_length}; at least half "
            f"of them, and {MIN_ROWS}, must. {said} Raise max_length, or train on shorter rows."
        )
    if said:
        progress.warn(said)
