"""TRL's trainers for rows that are already tokenized, with monitoring and without network.

TRL tokenizes with the base's own chat template and tokenizer. Both are code, so bounded processes
run them (`workers.engines.prompts`) before TRL gets the rows.
"""

from __future__ import annotations

from typing import Any

from trl import DPOTrainer, SFTTrainer

from workers.trainers.training import MonitoredTrainer


class _Tokenized(MonitoredTrainer):
    """Uses rows unchanged; does not write model cards or send TRL's usage reports."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **rest: Any) -> Any:
        return dataset

    def create_model_card(self, *args: Any, **rest: Any) -> None:
        return

    def _send_telemetry(self) -> None:
        return


class AnswerTrainer(_Tokenized, SFTTrainer):  # type: ignore[misc]
    """Trains on rows of `input_ids` and `labels`; positions with the label -100 are ignored."""


class PreferenceTrainer(_Tokenized, DPOTrainer):  # type: ignore[misc]
    """Trains on rows of `prompt_ids`, `chosen_ids` and `rejected_ids` by direct preference
    optimization (Rafailov et al. 2023, arXiv:2305.18290)."""
