"""Imported by a worker under test: text generation is done by the engine without a model."""

from __future__ import annotations

from tasks.text_generation import TASK

# In its module, because the web process discovers tasks again.
object.__setattr__(TASK, "engine", "tests.unit.workers.echo:EchoEngine")
