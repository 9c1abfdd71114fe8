"""`assay task check` prints everything that is wrong with a package, and how to fix it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plug_ins import install_task

pytestmark = pytest.mark.sweep

RUNNER = (
    "class Runner:\n"
    "    def __init__(self, folder, *, architectures, device, dtype): ...\n"
    + "".join(
        f"    def {name}(self, *given): ...\n"
        for name in ("prepare", "collate", "run", "split", "cancel", "close")
    )
    + "def train(request, progress): ...\ndef score(request): ...\n"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install_task(folder, "good-task")
    (folder / "good_task" / "work.py").write_text(RUNNER)
    adapts = "recipes=(dataclasses.replace(TASK.recipes[0], makes='adapter'),)"
    install_task(folder, "half-task", change=adapts)
    (folder / "half_task" / "work.py").write_text(
        RUNNER.replace("def train(request, progress)", "def train(request)").replace("run", "go")
    )
    install_task(
        folder,
        "bad-task",
        change="engine='batch', unit='furlongs', "
        "endpoints=(Endpoint('/v1/models', read, named=True),)",
    )
    install_task(folder, "taken", change='endpoints=(Endpoint("/v1/files", read, named=True),)')
    return folder


def check(site: Path, name: str) -> tuple[int, str]:
    """Run the command; return its exit status and all that it prints, with single spaces."""
    program = "from assay.cli.main import main\nmain()"
    command = [sys.executable, "-c", program, "task", "check", name]
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    ran = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, " ".join(f"{ran.stdout} {ran.stderr}".split())


def test_a_package_without_faults_can_be_used(site: Path) -> None:
    status, told = check(site, "good-task-package")
    assert (status, told) == (0, "good-task of good-task-package 1.0.0 can be used.")


def test_what_the_declaration_names_is_imported_and_looked_at(site: Path) -> None:
    status, told = check(site, "half-task")
    assert status == 1
    assert "runner It has no method `run`. → Write `run`." in told
    assert "runner It has no method `adapted`, but a recipe makes adapters. → Write" in told
    assert "recipes[0].train It takes (request). → Use a function of (request, progress)." in told
    assert "3 faults in half-task." in told


def test_each_fault_is_printed_with_how_to_fix_it(site: Path) -> None:
    status, told = check(site, "bad_task")
    assert status == 1
    assert "engine 'batch' is not an engine. → Use BATCH or GENERATION." in told
    assert "unit 'furlongs' is not a Unit. → Use one of Unit.TOKENS" in told


def test_a_path_of_the_gateway_is_a_fault(site: Path) -> None:
    status, told = check(site, "taken")
    assert status == 1
    assert "/v1/files is a path of the gateway. → Use a path of its own" in told


def test_a_package_that_is_not_installed_is_named_with_those_that_are(site: Path) -> None:
    status, told = check(site, "nothing")
    assert status == 1
    assert "No installed package nothing provides a task." in told
    assert "bad-task-package, good-task-package" in told
