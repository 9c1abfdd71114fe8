"""Packages in one process: none changes the code of a task, or brings in what no digest covers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.installed import declaration, install
from tests.unit.registry.test_task_code import FILES, POINT, SAY, started

# Runs when the declaration is tried. It writes into the private copies of its neighbor, which wait
# to be imported by the process that has both tried.
ATTACK = """
import glob, os, py_compile, sys, tempfile, time

EVIL = "class Runner:\\n    said = 'EVIL!'\\n"
roots = {tempfile.gettempdir(), "/tmp", TEMPORARY}
until = time.monotonic() + 5
copies = []
tried = not getattr(sys.modules["__main__"], "__file__", "").endswith("script.py")
while tried and not copies and time.monotonic() < until:
    copies = [
        path for root in roots
        for path in glob.glob(root + "/assay-code-*/other-task/other_task/runner.py")
    ]
    time.sleep(0.02)
for path in copies:
    try:
        times = os.stat(path)
        WAY
    except OSError:
        pass
"""
WAYS = {
    "source": "open(path, 'w').write(EVIL)",
    "bytecode": (
        "cache = os.path.dirname(path) + '/__pycache__/runner.' + sys.implementation.cache_tag\n"
        "        os.makedirs(os.path.dirname(cache), exist_ok=True)\n"
        "        open(path + '.x', 'w').write(EVIL)\n"
        "        os.utime(path + '.x', ns=(times.st_atime_ns, times.st_mtime_ns))\n"
        "        py_compile.compile(path + '.x', cfile=cache + '.pyc',"
        " invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)\n"
        "        os.unlink(path + '.x')"
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_trial_cannot_write_into_the_copies_of_a_neighbor(tmp_path: Path, way: str) -> None:
    site = tmp_path / "site"
    install(site, "other-task", FILES, task=POINT)
    alone = started(site, SAY)
    attack = ATTACK.replace("WAY", WAYS[way]).replace("TEMPORARY", repr(str(tmp_path)))
    evil = {
        "evil_task/__init__.py": attack + declaration("evil-task", "evil_task.runner:Runner"),
        "evil_task/runner.py": "class Runner: ...\n",
    }
    install(site, "evil-task", evil, task="evil-task = evil_task:TASK")
    said = started(site, SAY, TMPDIR=str(tmp_path))
    assert (said["says"], said["why"]) == ("RIGHT", None)
    assert said["digest"] == alone["digest"]


def test_the_gateway_s_calls_import_nothing_late_that_the_task_does_not_require(
    tmp_path: Path,
) -> None:
    """A helper that no digest covers could be changed after the approval."""
    site = tmp_path / "site"
    install(site, "undeclared", {"undeclared.py": "SAID = 'EVIL'\n"})
    late = "def late():\n    import undeclared\n    return undeclared.SAID\n"
    files = {**FILES, "other_task/late.py": late}
    install(site, "other-task", files, task=POINT)
    call = (
        "import asyncio\n"
        "from assay.gateway.run.plug_ins import PlugInDesk\n"
        "late = load_name('other_task.late:late') if 'other-task' in TASKS else None\n"
        "try:\n    said = asyncio.run(PlugInDesk().call('other-task', late))\n"
        "except ImportError as error:\n    said = str(error)\n"
        "print(json.dumps({'said': said}))"
    )
    assert "No module named 'undeclared'" in started(site, call)["said"]
    install(site, "other-task", files, requires=["undeclared"], task=POINT)
    assert started(site, call)["said"] == "EVIL", "Its digest covers it now."


def test_engines_that_are_loaded_again_and_again_add_nothing_to_the_path(tmp_path: Path) -> None:
    """A process confines itself at each load, and what it starts gets its environment."""
    site = tmp_path / "site"
    install(site, "other-task", FILES, task=POINT)
    code = (
        "import os\nlen(TASKS)\n"
        "def size():\n    CODE.confine()\n"
        "    return len(os.environ['PYTHONPATH']) + len(sys.path)\n"
        "print(json.dumps({'sizes': [size() for _ in range(3)]}))"
    )
    assert len(set(started(site, code)["sizes"])) == 1
