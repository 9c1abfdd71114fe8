"""Trainers know no catalogue, so each states its hyperparameters again: the two must agree."""

from __future__ import annotations

import pytest

from registry.catalogue import TASKS

pytestmark = pytest.mark.torch


def _fields(schema: dict[str, object]) -> dict[str, object]:
    """What a JSON schema says of its fields; how the seed is left out, each side says itself."""
    properties = dict(schema["properties"])  # type: ignore[call-overload]
    properties.pop("seed")
    return properties


@pytest.mark.parametrize("task", ["text-classification", "text-generation"])
def test_a_trainer_takes_what_the_catalogue_offers(task: str) -> None:
    from workers.trainers.classifier import ClassifierSettings
    from workers.trainers.lora import LoraSettings

    taken = {"text-classification": ClassifierSettings, "text-generation": LoraSettings}[task]
    offered = TASKS[task].hyperparameters
    assert _fields(taken.model_json_schema()) == _fields(offered.model_json_schema())
    taken.model_validate(offered().model_dump())
