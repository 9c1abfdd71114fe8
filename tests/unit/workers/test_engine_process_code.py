"""The process of a task's engines runs the bytes that its worker hashed, and cannot change them."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from registry.catalog.code import CODE, TaskCode
from registry.catalog.packages import packages_of
from registry.sandbox import landlock
from tests.installed import install
from tests.unit.workers.recording import Answer, prompted
from workers.engine_process.client import OwnEngines, ProcessEngine
from workers.engine_process.messages import EngineFailed

# Answers with what its package says, or with what came of writing into private copies.
ENGINE = """
import glob, os
from workers.wire import Delta, Done

class Engine:
    fault, working_s = "", 0.0

    def __init__(self, folder, **settings):
        self.folder = folder

    def current_load(self):
        from workers.wire import EngineLoad
        return EngineLoad()

    def submit(self, request, sink):
        said = self.written() if request.inputs.prompt == "write" else self.late()
        sink(Delta(said, 1))
        sink(Done("stop", 1, 1))

    def late(self):
        from NAME.words import SAID
        return SAID

    def written(self):
        here = os.path.dirname(os.path.abspath(__file__))
        changed = []
        for path in glob.glob(os.path.dirname(os.path.dirname(here)) + "/*/*/*"):
            for way in (lambda: open(path, "a").close(), lambda: open(path + ".x", "x").close(),
                        lambda: os.unlink(path), lambda: os.rename(path, path + "y")):
                try:
                    way()
                    changed.append(path)
                except OSError:
                    pass
        return f"changed {len(changed)}"

    def cancel(self, request_id): ...
    def close(self): ...
"""


def code_of(site: Path, name: str) -> TaskCode:
    """The code of a package that this process takes over, as it does when it discovers tasks."""
    module = name.replace("-", "_")
    files = {
        f"{module}/__init__.py": "",
        f"{module}/engine.py": ENGINE.replace("NAME", module),
        f"{module}/words.py": "SAID = 'RIGHT'\n",
    }
    install(site, name, files)
    sys.path.insert(0, str(site))
    try:
        code = TaskCode(packages_of(importlib.metadata.distribution(name)))
    finally:
        sys.path.remove(str(site))
    for package in code.packages:
        CODE.add(package)
    return code


@pytest.fixture
def engines(tmp_path: Path) -> OwnEngines:
    (tmp_path / "weights" / "w").mkdir(parents=True)
    return OwnEngines()


def load(engines: OwnEngines, root: Path, code: TaskCode) -> ProcessEngine:
    (package,) = code.packages
    name = f"{package.name.replace('-', '_')}.engine:Engine"
    weights = root / "weights"
    return engines.load(name, weights / "w", root=weights, group=package.name, code=code)


def said(engine: ProcessEngine, prompt: str) -> str:
    answer = Answer()
    engine.submit(prompted("r1", {"prompt": prompt}), answer)
    answer.wait()
    return answer.text or repr(answer.end)


CHANGES = {
    "changed": lambda copy: (copy / "words.py").write_text("SAID = 'EVIL!'\n"),
    "added": lambda copy: (copy / "dropped_in.py").write_text("SAID = 'EVIL!'\n"),
    "removed": lambda copy: (copy / "words.py").unlink(),
    "linked": lambda copy: (
        (copy / "words.py").unlink(), (copy / "words.py").symlink_to("/etc/hostname")
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_copies_that_change_between_worker_and_process_are_not_run(
    engines: OwnEngines, tmp_path: Path, change: str
) -> None:
    code = code_of(tmp_path / "site", f"between-{change}")
    (folder,) = CODE.folders(code).values()
    first = load(engines, tmp_path, code)
    assert said(first, "say") == "RIGHT"
    CHANGES[change](folder / f"between_{change}")
    # In the process that runs, and in a new one.
    for _ in range(2):
        with pytest.raises((EngineFailed, ValueError, OSError), match=r"not |digest|denied"):
            load(engines, tmp_path, code)
        first.close()


@pytest.mark.skipif(landlock.abi() < landlock.LEAST_ABI, reason="This kernel confines nothing.")
def test_the_process_changes_no_private_copy(engines: OwnEngines, tmp_path: Path) -> None:
    code, neighbor = (code_of(tmp_path / name, name) for name in ("writes-copies", "is-near"))
    CODE.folders(neighbor)
    engine = load(engines, tmp_path, code)
    try:
        assert said(engine, "write") == "changed 0"
        assert said(engine, "say") == "RIGHT"
    finally:
        engine.close()
