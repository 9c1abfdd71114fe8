"""Tasks whose rows hold files, for tests of datasets; registered by the fixture that needs them."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter

import pytest
from pydantic import BaseModel, ConfigDict, Field

from registry.catalog import code, get_task, task_catalog
from registry.catalog.columns import AudioFile, ImageFile
from registry.catalog.declaration import Task


class PictureRow(BaseModel):
    """A picture and what it shows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: ImageFile
    label: str = Field(min_length=1, max_length=100)


class SpeechRow(BaseModel):
    """A recording, its words, and perhaps its language."""

    model_config = ConfigDict(extra="forbid", strict=True)

    audio: AudioFile
    text: str = Field(min_length=1, max_length=10_000)
    language: str | None = None


class PairRow(BaseModel):
    """Two pictures."""

    model_config = ConfigDict(extra="forbid", strict=True)

    left: ImageFile
    right: ImageFile


def media_task(name: str, row: type[BaseModel], column: str) -> Task:
    return replace(
        get_task("text-classification"), name=name, row=row, row_input=itemgetter(column)
    )


PICTURES = media_task("test-pictures", PictureRow, "image")
SPEECH = media_task("test-speech", SpeechRow, "audio")
PAIRS = media_task("test-pairs", PairRow, "left")
MEDIA_TASKS = {task.name: task for task in (PICTURES, SPEECH, PAIRS)}


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the tasks to the catalog for one test."""
    for name, task in MEDIA_TASKS.items():
        monkeypatch.setitem(task_catalog().tasks, name, task)
        monkeypatch.setitem(code.CODES, name, code.NO_PACKAGES)
