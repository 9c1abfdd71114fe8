"""Imported by a worker under test: text generation is done by the engine without a model."""

from __future__ import annotations

import dataclasses

from registry.catalog import discovered

_tasks = discovered().tasks
_tasks["text-generation"] = dataclasses.replace(
    _tasks["text-generation"], engine="tests.unit.workers.echo:EchoEngine"
)
