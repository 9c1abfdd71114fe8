"""The small real models of the worker tests, and the tasks of other packages."""

from registry.catalog import task_catalog
from tests.unit.workers.conftest import engine, minilm, progress, smollm2, tiny, tiny_whole

__all__ = ["engine", "minilm", "progress", "smollm2", "tiny", "tiny_whole"]

# Tests import modules of `assay_tasks_extra`, which must come from its private copy.
task_catalog()
