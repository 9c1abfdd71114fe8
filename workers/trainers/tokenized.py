"""TRL's trainers on rows that are tokenized already, monitored and without network.

TRL tokenizes by the chat template and tokenizer that came with the base. Both are code, so here
they run in processes with limits (`workers.engines.prompts`) before TRL sees the rows.
"""

from __future__ import annotations

from typing import Any

from trl import DPOTrainer, SFTTrainer

from workers.trainers.training import MonitoredTrainer


class _Tokenized(MonitoredTrainer):
    """Takes rows as they are, and leaves out model cards and TRL's usage reports."""

    def _prepare_dataset(self, dataset: Any, *given: Any, **rest: Any) -> Any:
        return dataset

    def create_model_card(self, *given: Any, **rest: Any) -> None:
        return

    def _send_telemetry(self) -> None:
        return


class AnswerTrainer(_Tokenized, SFTTrainer):  # type: ignore[misc]
    """Learns rows of `input_ids` and `labels`; a label of -100 is not learned."""


class PreferenceTrainer(_Tokenized, DPOTrainer):  # type: ignore[misc]
    """Learns rows of `prompt_ids`, `chosen_ids` and `rejected_ids` by direct preference
    optimization (Rafailov et al. 2023, arXiv:2305.18290)."""
