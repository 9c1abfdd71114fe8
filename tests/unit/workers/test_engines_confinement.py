"""A server of another project reaches its own files alone, as root too."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from registry.sandbox import landlock
from tests.unit.workers.confinement import accesses
from tests.waiting import PATIENCE_S
from workers.engines.servers.installed import prefixes
from workers.engines.servers.process import ServerLimits, ServerProcess

DENIED = "Permission denied"


def test_a_server_opens_its_model_and_its_own_folder_and_no_other_file(tmp_path: Path) -> None:
    model, home, other = (tmp_path / name for name in ("model", "home", "other"))
    for folder in (model, home, other):
        folder.mkdir(mode=0o700)
        (folder / "file").write_text("secret")
        (folder / "file").chmod(0o600)
    paths = {"read": [str(model)], "own": [str(home)]}
    tried = {
        ("read", model / "file"): "done",
        ("write", model / "file"): DENIED,
        ("truncate", model / "file"): DENIED,
        ("remove", model / "file"): DENIED,
        ("write", home / "new"): "done",
        ("remove", home / "new"): "done",
        ("read", other / "file"): DENIED,
        ("write", other / "file"): DENIED,
        ("truncate", other / "file"): DENIED,
        ("list", tmp_path): DENIED,
        ("read", Path.home() / ".profile") if (Path.home() / ".profile").exists()
        else ("read", other / "file"): DENIED,
    }  # fmt: skip
    found = accesses(paths, list(tried))
    assert dict(zip(tried, found, strict=True)) == tried


def test_a_server_reads_nothing_of_its_worker_and_signals_no_process_outside(
    tmp_path: Path,
) -> None:
    worker = os.getpid()
    tried = [("read", f"/proc/{worker}/environ"), ("read", f"/proc/{worker}/maps")]
    assert accesses({}, tried) == [DENIED] * 2
    if landlock.abi() < 6:
        pytest.skip("this kernel's Landlock does not confine signals and abstract sockets")
    with socket.socket(socket.AF_UNIX) as listening:
        # Abstract names are global, and this test may run twice at once on one machine.
        listening.bind(f"\0{tmp_path}")
        listening.listen()
        tried = [("signal", str(worker)), ("connect", f"@{tmp_path}")]
        # In a network of its own it finds no such socket.
        signaled, connected = accesses({}, tried)
    assert signaled == "Operation not permitted"
    assert connected in ("Operation not permitted", "Connection refused")


def test_servers_share_no_memory_where_they_have_namespaces_of_their_own() -> None:
    shared = Path("/dev/shm", f"assay-test-{os.getpid()}")
    shared.write_text("of another server")
    try:
        (found,) = accesses({"own": [str(shared.parent)]}, [("read", shared)])
    finally:
        shared.unlink()
    if found == "done":
        pytest.skip("this kernel allows no new mount namespace")
    assert found == "No such file or directory"


def test_a_process_that_hides_closes_its_environment_to_its_user() -> None:
    code = (
        "from registry.sandbox.isolation import hide_process; hide_process()\n"
        "import ctypes, os; print(os.stat('/proc/self/environ').st_uid, ctypes.CDLL(None).prctl(3))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "0"]


def test_a_server_is_not_started_where_the_kernel_cannot_confine_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 2)
    with pytest.raises(OSError, match="no Landlock"):
        ServerProcess(
            lambda path: ["/bin/false"], paths={}, limits=ServerLimits(), on_end=lambda: None
        )


def test_the_folders_of_a_python_are_asked_of_it() -> None:
    assert prefixes(sys.executable) == (sys.prefix, sys.base_prefix)
    with pytest.raises(OSError, match="No such file"):
        prefixes("/missing/python")


def test_a_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    from workers.engines.servers.process import _private

    with open(tmp_path / "key", "w", opener=_private):
        pass
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
