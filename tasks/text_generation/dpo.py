"""Tune a language model on pairs of a better and a worse answer (TRL's DPOTrainer)."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from trl import DPOConfig

from assay.plugins import run
from tasks.text_generation.adapters import Examples, fit_adapter, load_adaptable, lora
from tasks.text_generation.conversations import MIN_ROWS, ConversationReader, cut_to
from tasks.text_generation.schema import (
    DpoHyperparameters,
    PreferencePair,
    preference_messages,
)


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Fine-tune toward the chosen answers; the reference is the base without the adapter.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(DpoHyperparameters, request.hyperparameters)
    rows = run.read_valid_rows(request.train_file, PreferencePair)
    if len(rows) < MIN_ROWS:
        raise run.BadMaterial(f"There are {len(rows)} pairs; at least {MIN_ROWS} are needed.")
    model, tokenizer = load_adaptable(request.base, settings)
    with closing(ConversationReader(tokenizer)) as reader:
        examples, cut = _examples(reader, rows, settings.max_length)
    left_out = len(rows) - len(examples)
    if len(examples) < max(MIN_ROWS, len(rows) / 2):
        raise run.BadMaterial(
            f"Only {len(examples)} of {len(rows)} pairs fit into max_length "
            f"{settings.max_length}; at least half of them, and {MIN_ROWS}, must. Raise "
            "max_length, or train on shorter rows."
        )
    if left_out:
        progress.warn(
            f"{left_out} of {len(rows)} pairs are left out: their prompts leave no room for an "
            f"answer within {settings.max_length} tokens."
        )
    run.warn_of_cut(
        progress, cut, len(rows), f"{settings.max_length} tokens (max_length) of a pair"
    )
    return fit_adapter(
        request,
        progress,
        kind=run.PreferenceTrainer,
        schema=DPOConfig,
        model=model,
        tokenizer=tokenizer,
        examples=examples,
        settings=settings,
        adapter=lora(settings),
        noun="pairs",
        parameters={"rows": len(rows), "rows_left_out": left_out},
        rows_cut=cut,
        options={"beta": settings.beta},
    )


def _examples(
    reader: ConversationReader, rows: list[dict[str, Any]], max_length: int
) -> tuple[Examples, int]:
    """Return the pairs with room for an answer, as tokens, and the number of cut answers."""
    examples: Examples = []
    cut = 0
    for row in rows:
        messages = preference_messages(row)
        wholes = [
            reader.whole({"messages": [*messages, {"role": "assistant", "content": row[kind]}]})
            for kind in ("chosen", "rejected")
        ]
        chosen, rejected = (cut_to(whole, max_length) for whole in wholes)
        if chosen is not None and rejected is not None:
            cut += any(len(whole.tokens) > max_length for whole in wholes)
            examples.append(
                {
                    "prompt_ids": chosen.tokens[: chosen.start],
                    "chosen_ids": chosen.tokens[chosen.start :],
                    "rejected_ids": rejected.tokens[rejected.start :],
                }
            )
    return examples, cut
