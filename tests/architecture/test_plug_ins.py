"""The public interface of plug-ins: what it loads, and that plug-ins use it and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.plugins import declare, run

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("tasks", "tasks-extra", "examples/task-plugin")
OWN = {"assay", "governance", "registry", "workers"}
# Names that plug-ins use in another way, or that complete a group.
ALSO = {"INTERFACE", "Item", "Runner", "SequenceRunner", "VideoInput"}
PUBLIC = {"assay.plugins": {"declare", "run"}, "assay.plugins.run": set(run.__all__)}


@pytest.mark.parametrize("module", ["assay.plugins.declare", "assay.plugins.run"])
def test_the_interface_loads_neither_django_nor_torch(module: str) -> None:
    program = f"import sys, {module}; print({{'django', 'torch'}} & set(sys.modules))"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "set()"


def test_a_runner_that_needs_no_torch_loads_none() -> None:
    program = (
        "import sys; from assay.plugins import run;"
        "run.BatchLimits, run.Item, run.RequestRefused, run.UnsupportedModel, run.parse_settings;"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "set()"


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file, ast.parse(file.read_text())


def test_plug_ins_and_their_tests_import_nothing_else_of_assay() -> None:
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not {each.name.partition(".")[0] for each in node.names} & OWN, file
            elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in OWN:
                names = {each.name for each in node.names}
                assert names <= PUBLIC.get(str(node.module), set()), (file, node.module)


def test_each_public_name_is_used_by_a_plug_in() -> None:
    used = {
        (node.value.id, node.attr)
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    for module, names in (("declare", declare.__all__), ("run", run.__all__)):
        unused = {name for name in names if (module, name) not in used}
        assert unused <= ALSO, module


@pytest.mark.torch
def test_each_name_of_workers_can_be_imported() -> None:
    assert [name for name in run.__all__ if getattr(run, name, None) is None] == []
    assert sorted(run.__all__) == dir(run)
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        run.unheard_of  # noqa: B018
