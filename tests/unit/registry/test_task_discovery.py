"""Packages of tasks: found by entry point, tried in a process of their own, left out alone."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import psutil
import pytest

from registry.catalog import GROUP, discovery, probe
from registry.catalog.discovery import TaskCatalog, by_package, discover, installed
from tests.plug_ins import declared, install, install_task


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path, for packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def others(found: TaskCatalog) -> dict[str, str]:
    """Return the reason for each package that is left out, by its name."""
    return {each.entry.package: each.reason for each in found.refused}


def test_a_package_is_found_with_its_distribution(site: Path) -> None:
    install_task(site, "first-task")
    found = discover(installed())
    assert found.refused == []
    entry = found.entries["first-task"]
    assert (entry.package, entry.is_own) == ("first-task-package 1.0.0", False)
    assert entry.distribution is not None
    assert entry.distribution.files is not None
    assert found.entries["embeddings"].is_own
    assert found.tasks["first-task"].title == "A task of a test"


def test_the_extra_tasks_come_as_any_other_package(site: Path) -> None:
    found = discover(installed())
    extra = {n: e for n, e in found.entries.items() if e.distribution_name == "assay-tasks-extra"}
    assert sorted(extra) == [
        "tabular-classification",
        "text-to-audio",
        "text-to-video",
        "time-series-forecasting",
        "voice-activity-detection",
    ]
    for entry in extra.values():
        assert not entry.is_own
        assert [each.name for each in entry.code().packages] == ["assay-tasks-extra"]
    assert by_package(extra.values()) == [list(extra.values())]


HOSTILE = {
    "raises": "raise RuntimeError('needs a license file')",
    "exits": "raise SystemExit(3)",
    "ends": "import os\nos._exit(0)",
    "crashes": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "grows": "held = [bytearray(2**28) for _ in range(64)]",
    "closes": "import os\nos.closerange(0, 256)",
    "prints": "for _ in range(200_000): print('x' * 80)\nraise ValueError('printed')",
    "moves": "import os\nos.chdir('/')",
    "sets": "import os\nos.environ['PATH'] = '/nowhere'",
    "threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()",
    "signals": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "replaces": "import sys\nsys.stdout = None",
    "forks": "import os, time\nif os.fork() == 0:\n    time.sleep(600)\nraise KeyError('forked')",
    "loads": "import sys\nsys.modules['torch'] = sys",
    "looks": "from registry.catalog import TASKS\nlist(TASKS)",
    "odd": "class Odd(BaseException):\n    def __str__(self): raise Odd\nraise Odd",
}
REASONS = {
    "raises": "RuntimeError: needs a license file",
    "exits": "SystemExit: 3",
    "ends": "ended the process that tried it, with status 0",
    "crashes": "ended the process that tried it, with signal 11",
    "grows": "MemoryError",
    "closes": "ended the process that tried it",
    "prints": "ValueError: printed",
    "moves": "changes the working directory",
    "sets": "changes the environment",
    "threads": "changes the number of threads",
    "signals": "changes the way signals are handled",
    "replaces": "changes standard output or error",
    "forks": "KeyError: 'forked'",
    "loads": "loads torch",
    "looks": "cannot look at the catalog while it is imported",
    "odd": "raised Odd",
}


def test_a_package_for_another_interface_is_left_out_and_told_which(site: Path) -> None:
    install_task(site, "for-two", change="interface=2")
    install_task(site, "needs-more", before="from assay.plugins.declare import Oracle")
    install_task(site, "calls-more", before="from assay.plugins import run\nrun.divine('rain')")
    found = discover(installed())
    assert "written for interface 2 of assay.plugins; this" in found.unavailable["for-two"]
    for name in ("needs-more", "calls-more"):
        assert "for interface 1 of assay.plugins" in found.unavailable[name], found.unavailable


def test_a_module_that_does_harm_at_import_leaves_out_its_own_task_alone(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "MEMORY_BYTES", 512 * 1024**2)
    for name, code in HOSTILE.items():
        install_task(site, f"it-{name}", before=code)
    install_task(site, "it-works")
    before = (os.getcwd(), dict(os.environ), set(sys.modules))
    found = discover(installed())
    assert [name for name in found.tasks if name.startswith("it-")] == ["it-works"]
    assert "embeddings" in found.tasks
    reasons = {each.entry.name.removeprefix("it-"): each.reason for each in found.refused}
    for name, reason in REASONS.items():
        assert reason in reasons[name], (name, reasons[name])
    assert reasons.keys() == REASONS.keys()
    # Nothing of them was imported here.
    assert (os.getcwd(), dict(os.environ)) == before[:2]
    assert not {f"it_{name}" for name in HOSTILE} & set(sys.modules)


def test_a_module_that_hangs_at_import_is_killed_and_left_out(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SECONDS", 1.0)
    install_task(site, "it-hangs", before="import time\ntime.sleep(600)")
    install_task(site, "it-spins", before="import re\nre.match('(a+)+b', 'a' * 60)")
    # On a busy machine, a second is too short for other installed packages, too.
    found = discover(each for each in installed() if each.name.startswith("it-"))
    assert found.unavailable.keys() == {"it-hangs", "it-spins"}
    assert "did not end within 1 s, and was killed" in found.unavailable["it-spins"]


def test_what_a_trial_started_ends_with_it(site: Path, tmp_path: Path) -> None:
    # A program of its own, by a name that no other process has.
    program = tmp_path.name
    code = (
        f"import subprocess, sys\nsubprocess.Popen([{program!r}, '600'], executable='/bin/sleep')\n"
    )
    install_task(site, "leaves-a-child", before=code)
    (fault,) = probe.probe([EntryPoint("leaves-a-child", "leaves_a_child:TASK", GROUP)])
    assert "changes the number of processes" in fault.what
    while any(_runs(each, program) for each in psutil.process_iter()):
        time.sleep(0.01)


def _runs(process: psutil.Process, program: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()[:1] == [program]
    return False


def test_a_trial_reaches_no_file_and_no_network_of_its_parent(site: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    code = (
        "import os, socket\n"
        "def tried(what, *given):\n"
        "    try:\n        what(*given)\n"
        "    except OSError:\n        return\n"
        "    raise SystemExit(f'reached {given}')\n"
        f"tried(open, {str(tmp_path / 'secret')!r})\n"
        f"tried(open, {str(tmp_path / 'made')!r}, 'w')\n"
        f"tried(open, '/proc/{os.getpid()}/environ')\n"
        "tried(socket.create_connection, {server}, 1)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = repr(server.getsockname())
        install_task(site, "looks-around", before=code.replace("{server}", place))
        assert probe.probe([EntryPoint("looks-around", "looks_around:TASK", GROUP)]) == []


def test_a_task_of_assay_wins_over_a_package_of_the_same_name(site: Path) -> None:
    install(
        site, "aaa", {"aaa.py": "raise RuntimeError('imported')"}, tasks={"embeddings": "aaa:T"}
    )
    found = discover(installed())
    assert found.entries["embeddings"].is_own
    assert others(found)["aaa 1.0.0"] == (
        "name: embeddings is a task of Assay, which serves it. Rename the task."
    )
    assert found.unavailable == {}


def test_two_packages_of_one_name_are_both_left_out_in_any_order(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("one", "two"):
        source = declared(package, "shared-name")
        install(site, package, {f"{package}.py": source}, tasks={"shared-name": f"{package}:TASK"})
    found = discover(installed())
    assert "shared-name" not in found.tasks
    told = others(found)
    assert told.keys() == {"one 1.0.0", "two 1.0.0"}
    for reason in told.values():
        assert "one 1.0.0 in" in reason
        assert "two 1.0.0 in" in reason
    assert "Several packages provide shared-name" in found.unavailable["shared-name"]


def test_one_package_in_two_folders_of_the_path_is_left_out(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_task(site, "installed-twice")
    other = tmp_path / "other"
    other.mkdir()
    install_task(other, "installed-twice")
    monkeypatch.syspath_prepend(str(other))
    # The same folder named twice is one installation.
    monkeypatch.syspath_prepend(str(other))
    found = discover(installed())
    assert "installed-twice" not in found.tasks
    assert len(found.refused) == 2


def test_paths_that_something_else_answers_are_left_to_it(site: Path) -> None:
    install_task(
        site, "takes-a-path", change='endpoints=(Endpoint("/v1/models", read, named=True),)'
    )
    chat = 'endpoints=(Endpoint("/v1/chat/completions", read, named=True),)'
    install_task(site, "takes-a-chat", change=chat)
    below = 'endpoints=(Endpoint("/v1/tasks/text-classification/mine", read, named=True),)'
    install_task(site, "takes-a-model", change=below)
    for name in ("first-rival", "second-rival"):
        install_task(
            site, name, change='endpoints=(Endpoint("/v1/tasks/rival", read, named=True),)'
        )
    shared = (
        "endpoints=(Endpoint('/v1/chat/completions', lambda body, request_id, name: "
        "read(body, request_id, 'example')),), sample={'inputs': 'x'}"
    )
    source = declared("shares", "shares", shared).replace(
        "class Request(Strict):", "class Request(Strict):\n    model: str = ''"
    )
    install_task(site, "shares", source)
    asked = []

    def answered(path: str, named: bool) -> str:
        asked.append((path, named))
        return "the gateway" if path.startswith("/v1/models") else ""

    found = discover(installed(), answered)
    reasons = {each.entry.name: each.reason for each in found.refused}
    assert "/v1/models is a path of the gateway." in reasons["takes-a-path"]
    assert "/v1/chat/completions already serves text-generation." in reasons["takes-a-chat"]
    assert "already serves text-classification" in reasons["takes-a-model"]
    assert "already serves second-rival" in reasons["first-rival"]
    assert "already serves first-rival" in reasons["second-rival"]
    assert ("/v1/models", True) in asked
    assert "shares" in found.tasks


def test_a_package_that_replaces_modules_of_assay_is_left_out(site: Path) -> None:
    install(
        site,
        "replacing",
        {"replacing.py": declared("replacing", "replacing"), "tasks/mine.py": ""},
        tasks={"replacing": "replacing:TASK"},
    )
    # A folder without __init__.py does not hide the real package from the rest of this test run.
    assert "Assay's own package tasks" in others(discover(installed()))["replacing 1.0.0"]


def test_tasks_that_refer_to_unknown_ones_are_left_out(site: Path) -> None:
    judge = "evaluation=dataclasses.replace(TASK.evaluation, judge='no-such-judge')"
    install_task(site, "has-a-judge", change=judge)
    bases = "recipes=(dataclasses.replace(TASK.recipes[0], bases=frozenset({'no-base'})),)"
    install_task(site, "has-a-base", change=bases)
    reasons = {each.entry.name: each.reason for each in discover(installed()).refused}
    assert "No installed package provides the task no-such-judge." in reasons["has-a-judge"]
    assert "No installed package provides the task no-base." in reasons["has-a-base"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nothing_like_it:TASK", "No module named 'nothing_like_it'"),
        ("named_otherwise:NONE", "has no attribute 'NONE'"),
        ("named_otherwise:Row", "is not a Task"),
        ("named_otherwise:TASK", "its entry point is 'mine'"),
        ("not a name", "raised"),
    ],
)
def test_what_is_no_declaration_is_left_out_with_the_reason(
    site: Path, value: str, reason: str
) -> None:
    (site / "named_otherwise.py").write_text(declared("named_otherwise", "yours"))
    faults = probe.probe([EntryPoint("mine", value, GROUP)])
    assert reason in " ".join(map(str, faults))


def test_what_passes_the_trial_and_raises_here_is_left_out_too(site: Path) -> None:
    code = (
        "import os\nif os.environ.get('ASSAY_ENV') == 'test':\n    raise SystemExit('only here')\n"
    )
    install_task(site, "changes-its-mind", before=code)
    found = discover(installed())
    assert "SystemExit: only here" in found.unavailable["changes-its-mind"]


def test_a_module_that_looks_at_the_catalog_here_alone_stops_nothing(site: Path) -> None:
    code = (
        "import os\nif os.environ.get('ASSAY_ENV') == 'test':\n"
        "    from registry.catalog import TASKS\n    list(TASKS)\n"
    )
    install_task(site, "looks-here", before=code)
    found = discover(installed())
    assert "cannot look at the catalog" in found.unavailable["looks-here"]
    assert "embeddings" in found.tasks


def test_a_run_loads_its_own_task_and_looks_at_no_other(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from governance.errors import InvalidInput
    from registry import catalog

    install_task(site, "mine-alone")
    install_task(site, "hangs-for-ever", before="import time\ntime.sleep(600)")
    catalog._claims.cache_clear()
    try:
        assert catalog.task_alone("mine-alone").name == "mine-alone"
        with pytest.raises(InvalidInput, match="no installed package provides it"):
            catalog.task_alone("never-there")
    finally:
        catalog._claims.cache_clear()
    assert discovery.GROUP == GROUP
