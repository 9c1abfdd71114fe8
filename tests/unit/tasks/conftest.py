"""The small real models of the worker tests."""

from tests.unit.workers.conftest import engine, minilm, progress, smollm2, tiny, tiny_whole

__all__ = ["engine", "minilm", "progress", "smollm2", "tiny", "tiny_whole"]
