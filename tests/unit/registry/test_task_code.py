"""The code of a task is the bytes of its packages, and nothing else is imported for it."""

from __future__ import annotations

import compileall
import importlib.metadata
import json
import os
import py_compile
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry.catalog import task_code
from registry.catalog.code import NO_PACKAGES
from registry.catalog.packages import CodeUnknown, Package, locked_names, packages_of
from tests.installed import declaration, install

ROOT = Path(__file__).resolve().parents[3]
RUNNER = "other_task.runner:Runner"
FILES = {
    "other_task/__init__.py": declaration("other-task", RUNNER),
    "other_task/runner.py": "class Runner:\n    said = 'RIGHT'\n",
    "other_task/words.txt": "RIGHT",
}
POINT = "other-task = other_task:TASK"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    install(folder, "other-task", FILES, task=POINT)
    return folder


def packages(folder: Path, name: str = "other-task") -> dict[str, Package]:
    """The packages of a distribution in a folder, as a process that finds it there sees them."""
    sys.path.insert(0, str(folder))
    try:
        found = packages_of(importlib.metadata.distribution(name))
    finally:
        sys.path.remove(str(folder))
    return {each.name: each for each in found}


def digest(folder: Path) -> str:
    return packages(folder)["other-task"].digest


def started(
    site: Path, code: str, *before: Path, enters: bool = False, **environment: str
) -> dict[str, Any]:
    """Output of a process that starts with `site` on Python's path. `enters`: it imports the
    packages as the process of engines does, from copies of another."""
    begin = (
        "import json, sys\n"
        "from registry.catalog import TASKS, unavailable_tasks\n"
        "from registry.catalog import task_code\n"
        "from registry.catalog.code import CODE, code_enter\n"
        "from workers.engines.names import load_name\n"
    )
    path = os.pathsep.join([*map(str, before), str(ROOT), str(ROOT / "platform"), str(site)])
    script = site.parent / "script.py"
    script.write_text(f"{begin}{code}\n")
    ran = subprocess.run(
        [sys.executable, str(script)],
        cwd=site.parent, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return said


SAY = (
    "runner = load_name('other_task.runner:Runner') if 'other-task' in TASKS else None\n"
    "code = task_code('other-task')\n"
    "print(json.dumps({'says': runner and runner.said, 'digest': code and code.digest,\n"
    "    'from': runner and sys.modules['other_task.runner'].__file__,\n"
    "    'why': unavailable_tasks().get('other-task')}))"
)


def test_own_tasks_have_no_packages() -> None:
    assert task_code("text-generation") is NO_PACKAGES
    assert task_code("no-such-task") is None
    assert NO_PACKAGES.digest == (
        "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
    )


def test_the_digest_is_that_of_the_bytes_wherever_they_lie(site: Path, tmp_path: Path) -> None:
    other = tmp_path / "another" / "site-packages"
    install(other, "other-task", FILES, task=POINT)
    (other / "other_task-0.1.0.dist-info" / "INSTALLER").write_text("uv\n")
    (other / "other_task-0.1.0.dist-info" / "direct_url.json").write_text('{"url": "file:///x"}')
    compileall.compile_dir(other, quiet=2)
    assert digest(other) == digest(site)
    (package,) = packages(site).values()
    assert package.modules == {"other_task"}
    assert {each.path for each in package.files} > set(FILES)
    assert not any("RECORD" in each.path for each in package.files)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("other_task/runner.py", "class Runner:\n    said = 'EVIL!'\n"),
        ("other_task/words.txt", "EVIL!"),
        ("other_task/dropped_in.py", "EVIL"),
        ("other_task/deep/dropped_in.txt", "EVIL"),
        ("other_task/native.so", "EVIL"),
        ("other_task-0.1.0.dist-info/entry_points.txt", "[assay.tasks]\nother-task = other:T\n"),
    ],
)
def test_every_file_counts_whatever_the_installer_listed(
    site: Path, path: str, content: str
) -> None:
    before = digest(site)
    file = site / path
    times = file.stat() if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    if times is not None:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest(site) != before


def test_a_file_that_is_gone_counts(site: Path) -> None:
    before = digest(site)
    (site / "other_task" / "words.txt").unlink()
    assert digest(site) != before


def test_requirements_outside_of_the_locks_belong_to_the_code(tmp_path: Path) -> None:
    site = tmp_path / "site"
    requires = [
        "numpy>=1", "Needed.Library", "left-out ; python_version < '3'", "chosen ; extra == 'x'",
        "other-task[x]", "not-there",
    ]  # fmt: skip
    install(site, "other-task", FILES, requires=requires, task=POINT)
    for name in ("needed-library", "left-out", "chosen", "below"):
        needs = ["below>1"] if name == "needed-library" else []
        module = name.replace("-", "_")
        install(site, name, {f"{module}.py": "A = 1\n"}, requires=needs)
    found = packages(site)
    assert sorted(found) == ["below", "chosen", "needed-library", "not-there", "other-task"]
    assert (found["not-there"].version, found["not-there"].files) == ("", ())
    before = found["below"].digest
    (site / "below.py").write_text("A = 2\n")
    assert packages(site)["below"].digest != before


def test_the_list_of_locked_names_is_that_of_the_locks() -> None:
    pinned = {
        line.partition("==")[0].lower().replace("_", "-").replace(".", "-")
        for part in ("control", "worker", "torch")
        for line in (ROOT / "locks" / f"{part}.txt").read_text().splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    }
    assert locked_names() == pinned, "Run tools/lock.py."


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"json/__init__.py": ""}, "provides a module json, which would hide another one"),
        ({"workers/evil.py": ""}, "provides a module workers"),
        ({"numpy/__init__.py": ""}, "provides a module numpy"),
        ({"six.py": ""}, "provides a module six"),
    ],
)
def test_a_package_hides_no_other_module(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    install(tmp_path, "other-task", files, task=POINT)
    with pytest.raises(CodeUnknown, match=reason):
        packages(tmp_path)


def test_files_in_the_folder_of_another_package_are_refused(site: Path) -> None:
    install(site, "intruder", {"other_task/more.py": ""})
    with pytest.raises(CodeUnknown, match="has files in other_task, which it does not provide"):
        packages(site, "intruder")


def test_an_editable_installation_counts_its_sources(tmp_path: Path) -> None:
    site, source = tmp_path / "site", tmp_path / "source"
    for path, content in FILES.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(content)
    info = install(site, "other-task", {"_other.pth": f"{source}\n"}, task=POINT)
    said = {"url": source.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(said))
    before = packages(site)["other-task"]
    assert {each.path for each in before.files} > set(FILES)
    assert "_other.pth" not in {each.path for each in before.files}
    assert started(site, SAY)["says"] == "RIGHT"
    (source / "other_task" / "runner.py").write_text("class Runner:\n    said = 'EVIL'\n")
    assert packages(site)["other-task"].digest != before.digest


def test_a_process_imports_private_copies(site: Path) -> None:
    said = started(site, SAY)
    assert (said["says"], said["why"]) == ("RIGHT", None)
    assert "assay-code-" in said["from"]
    assert not Path(said["from"]).exists(), "The process leaves its copies behind."


def test_bytecode_of_another_source_is_not_run(site: Path) -> None:
    evil = site.parent / "evil.py"
    evil.write_text("class Runner:\n    said = 'EVIL'\n")
    runner = site / "other_task" / "runner.py"
    for mode in (
        py_compile.PycInvalidationMode.UNCHECKED_HASH, py_compile.PycInvalidationMode.TIMESTAMP,
    ):  # fmt: skip
        os.utime(evil, ns=(runner.stat().st_atime_ns, runner.stat().st_mtime_ns))
        py_compile.compile(
            str(evil), cfile=str(importlib.util.cache_from_source(str(runner))),
            invalidation_mode=mode,
        )  # fmt: skip
        assert started(site, SAY)["says"] == "RIGHT"
    # Without a source, Python would run bytecode in the place of a module.
    py_compile.compile(str(evil), cfile=str(site / "other_task" / "dropped_in.pyc"))
    code = "import importlib.util as u\nlen(TASKS)\nimport other_task\n" + (
        "print(json.dumps({'found': u.find_spec('other_task.dropped_in') is not None}))"
    )
    assert started(site, code) == {"found": False}


def test_a_folder_that_comes_first_on_the_path_hides_nothing(site: Path) -> None:
    shadow = site.parent / "shadow"
    (shadow / "other_task").mkdir(parents=True)
    (shadow / "other_task" / "__init__.py").write_text(FILES["other_task/__init__.py"])
    (shadow / "other_task" / "runner.py").write_text("class Runner:\n    said = 'EVIL'\n")
    right = started(site, SAY)
    said = started(site, SAY, shadow)
    assert (said["says"], said["digest"]) == ("RIGHT", right["digest"])


def test_what_changes_after_the_start_is_not_imported(site: Path) -> None:
    change = (
        "len(TASKS)\n"
        f"open({str(site / 'other_task' / 'runner.py')!r}, 'w').write("
        "'class Runner:\\n    said = \"EVIL\"\\n')\n"
    )
    right = started(site, SAY)
    said = started(site, change + SAY)
    assert (said["says"], said["digest"]) == ("RIGHT", right["digest"])


def test_a_package_that_changes_before_it_is_copied_is_not_imported(site: Path) -> None:
    install(site, "needed", {"needed.py": "A = 'RIGHT'\n"})
    install(site, "other-task", FILES, requires=["needed"], task=POINT)
    change = (
        "from registry.catalog import entry_of\n"
        "entry_of('other-task').code()\n"
        f"open({str(site / 'needed.py')!r}, 'w').write('A = \"EVIL\"')\n"
        "try:\n    import needed\n    said = needed.A\n"
        "except Exception as error:\n    said = str(error)\n"
        "print(json.dumps({'said': said}))"
    )
    assert "has changed since this process started" in started(site, change)["said"]


@pytest.mark.parametrize("place", ["sitecustomize.py", "evil.pth"])
def test_code_that_runs_when_python_starts_cannot_import_first(site: Path, place: str) -> None:
    start = site.parent / "start"
    start.mkdir()
    evil = "import other_task.runner; other_task.runner.Runner.said = 'EVIL'\n"
    (start / place).write_text(evil)
    environment = {}
    if place.endswith(".pth"):
        (start / "sitecustomize.py").write_text(f"import site; site.addsitedir({str(start)!r})\n")
    said = started(site, SAY, start, **environment)
    assert said["says"] is None
    assert "was imported before its files were hashed" in said["why"]


def test_an_entry_point_names_a_package_that_belongs_to_the_task(site: Path) -> None:
    elsewhere = {"elsewhere/__init__.py": declaration("third", "elsewhere.runner:Runner")}
    install(site, "elsewhere", elsewhere)
    install(site, "third", {"third/__init__.py": ""}, task="third = elsewhere:TASK")
    say = "print(json.dumps({'why': unavailable_tasks().get('third')}))"
    assert "elsewhere:TASK is in none of third 0.1.0" in started(site, say)["why"]
    install(
        site, "third", {"third/__init__.py": ""}, requires=["elsewhere"],
        task="third = elsewhere:TASK",
    )  # fmt: skip
    assert started(site, say)["why"] is None


def test_a_runner_belongs_to_the_task_s_packages(site: Path) -> None:
    files = {**FILES, "other_task/__init__.py": declaration("other-task", "evil.runner:Runner")}
    install(site, "other-task", files, task=POINT)
    assert "evil.runner:Runner is in none of other-task 0.1.0" in started(site, SAY)["why"]


def test_a_package_that_is_not_required_is_not_found(site: Path) -> None:
    install(site, "undeclared", {"undeclared.py": "A = 1\n"})
    files = {
        **FILES,
        "other_task/__init__.py": declaration("other-task", RUNNER, "import undeclared"),
    }
    install(site, "other-task", files, task=POINT)
    why = started(site, SAY)["why"]
    assert "No module named 'undeclared'" in why
    assert "Name what provides it in the requirements" in why
    install(site, "other-task", files, requires=["undeclared"], task=POINT)
    assert started(site, SAY)["says"] == "RIGHT"


INNER = """
import importlib.metadata, importlib.util, json, sys
from registry.catalog.code import code_enter
digest = code_enter(json.loads(sys.argv[1]))
import numpy, other_task.runner
print(json.dumps({
    "installed": importlib.metadata.version("numpy"),
    "digest": digest,
    "says": other_task.runner.Runner.said,
    "numpy": numpy.__file__,
    "undeclared": importlib.util.find_spec("undeclared") is not None,
}))
"""
ENTER = """
import os, subprocess
code = task_code("other-task")
folders = {name: str(folder) for name, folder in CODE.folders(code).items()}
path = os.pathsep.join([SHADOW, os.environ["PYTHONPATH"]])
ran = subprocess.run(
    [sys.executable, "-c", INNER, json.dumps(folders)],
    capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
)
assert ran.returncode == 0, ran.stderr
print(json.dumps({**json.loads(ran.stdout), "outer": code.digest}))
"""


def test_a_process_of_engines_finds_what_the_task_requires_and_nothing_else(site: Path) -> None:
    install(site, "undeclared", {"undeclared.py": "A = 1\n"})
    shadow = site.parent / "shadow"
    for module in ("numpy", "other_task"):
        (shadow / module).mkdir(parents=True)
        (shadow / module / "__init__.py").write_text("EVIL = 1\n")
    said = started(site, f"SHADOW, INNER = {str(shadow)!r}, {INNER!r}\n{ENTER}")
    assert said["digest"] == said["outer"]
    assert said["says"] == "RIGHT"
    assert not said["undeclared"]
    assert said["installed"] == importlib.metadata.version("numpy")
    assert "site-packages" in said["numpy"]


def test_a_namespace_is_shared_and_cannot_be_taken_over(site: Path) -> None:
    files = {
        "shared_space/ours/__init__.py": declaration(
            "other-task", "shared_space.ours.runner:Runner"
        ),
        "shared_space/ours/runner.py": "class Runner:\n    said = 'RIGHT'\n",
    }
    install(site, "spaced", files, task="other-task = shared_space.ours:TASK")
    for path in (site / "other_task-0.1.0.dist-info").iterdir():
        path.unlink()
    (site / "other_task-0.1.0.dist-info").rmdir()
    shadow = site.parent / "shadow"
    (shadow / "shared_space" / "ours").mkdir(parents=True)
    (shadow / "shared_space" / "__init__.py").write_text("")
    (shadow / "shared_space" / "ours" / "__init__.py").write_text("EVIL = 1\n")
    (shadow / "shared_space" / "ours" / "runner.py").write_text("class Runner: said = 'EVIL'\n")
    say = SAY.replace("other_task.runner", "shared_space.ours.runner")
    assert started(site, say, shadow)["says"] == "RIGHT"
    before = packages(site, "spaced")["spaced"].digest
    install(site, "neighbor", {"shared_space/theirs/__init__.py": ""})
    assert packages(site, "spaced")["spaced"].digest == before
