"""Imported by a process under test: text generation is done by the engine without a model."""

from __future__ import annotations

import dataclasses

import tasks.text_generation as declared

# In the declaration: a process may look at all tasks anew.
declared.TASK = dataclasses.replace(declared.TASK, engine="tests.unit.workers.echo:EchoEngine")
