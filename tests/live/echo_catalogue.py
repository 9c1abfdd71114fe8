"""Imported by a worker under test: text generation is done by the engine without a model."""

from __future__ import annotations

import dataclasses

from registry.catalogue import TASKS

_task = TASKS["text-generation"]
TASKS[_task.name] = dataclasses.replace(_task, engine="tests.unit.workers.echo:EchoEngine")
