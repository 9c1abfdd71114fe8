"""Reach of every process that works on strangers' files, models or code: all of them are
walked through, and from inside each one the same accesses are tried.

docs/explanation/processes.md lists them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from governance.errors import InvalidInput
from registry.datasets.row_search import Search
from registry.datasets.rows import search_file
from registry.datasets.unpacking import make_previews, unpack
from registry.intake.bounded import check_bounded
from registry.intake.checks import Limits
from registry.knowledge.extraction import extract_text
from registry.media import decoders, video_process
from registry.media.limits import MediaLimits
from registry.sandbox import landlock, readers, system_calls
from tests.unit.registry.media_files import picture
from tests.unit.workers.confinement import accesses
from tests.unit.workers.recording import Answer, prompted
from workers.engine_process.client import OwnEngines
from workers.engines import bounded
from workers.launchers import local
from workers.run.order import Resources

if landlock.abi() < landlock.LEAST_ABI:
    pytest.skip("this kernel has no Landlock", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[3]
SECRETS = {"ASSAY_WIRE_KEY": "1", "DATABASE_URL": "1", "REDIS_URL": "1", "HF_TOKEN": "1"}


@dataclass
class Outside:
    """Things of the process that starts the others, and of its machine."""

    folder: Path
    port: int
    sockets: list[str] = field(default_factory=list)

    @property
    def tried(self) -> dict[tuple[str, str], str]:
        """Each access, and what it is good for."""
        pid, secret = str(os.getpid()), str(self.folder / "secret")
        return {
            ("read", f"/proc/{pid}/environ"): "secrets of the environment",
            ("read", f"/proc/{pid}/mem"): "secrets in memory",
            ("read", f"/proc/{os.getppid()}/environ"): "secrets of its parent",
            ("list", f"/proc/{pid}/root"): "files, by another way",
            ("read", f"/proc/{pid}/fd/1"): "open files",
            ("read", secret): "the files of secrets",
            ("list", str(self.folder)): "names of files",
            ("read", str(ROOT / "pyproject.toml")): "files next to code",
            ("write", secret): "files of others",
            ("truncate", secret): "files of others",
            ("write", str(self.folder / "new")): "files of others",
            ("write", str(ROOT / "registry" / "new.py")): "code",
            ("write", str(Path(sys.prefix) / "new.pth")): "code",
            ("trace", pid): "everything",
            ("signal", pid): "its end",
            ("limit", pid): "its end",
            ("tcp", str(self.port)): "the database",
            ("connect", f"@{self.folder}"): "services on abstract sockets",
        }

    # Accesses that Landlock leaves open and readers do not need.
    @property
    def tried_by_readers(self) -> dict[tuple[str, str], str]:
        pid, secret = str(os.getpid()), str(self.folder / "secret")
        return {
            ("connect", str(self.folder / "socket")): "the broker",
            ("udp", str(self.port)): "names of hosts",
            ("mode", secret): "files of others",
            ("times", secret): "files of others",
            ("watch", str(self.folder)): "names of files",
            ("renice", pid): "its speed",
            ("run", "/bin/true"): "programs",
            ("fork", ""): "to outlive its time",
            ("read", "/etc/passwd"): "names of users",
        }


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret").write_text("secret")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as named,
    ):
        # Abstract names are shared by the machine, on which this test may run twice at once.
        abstract.bind(f"\0{folder}")
        named.bind(str(folder / "socket"))
        for each in (abstract, named):
            each.listen()
        yield Outside(folder, tcp.getsockname()[1])


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have secrets here, and processes run the probe in place of what they read with."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    command = readers.reader_command

    def probing(module: str, reach: readers.Reach, **more: Any) -> list[str]:
        own = module if module.startswith("tests.") else "tests.unit.reader_probe"
        made = command(own, reach, **more)
        allowed = json.loads(made[-2])
        # The reader may not read the tests.
        allowed["paths"]["run"].append(str(ROOT / "tests"))
        return [*made[:-2], json.dumps(allowed), own]

    for each in (readers, decoders, bounded):
        monkeypatch.setattr(each, "reader_command", probing)
    monkeypatch.setattr(decoders, "_MODULE", "tests.unit.decoder_probe")
    monkeypatch.setattr(bounded, "_MODULE", "tests.unit.prompt_probe")
    monkeypatch.setattr(local, "_FORKED", "tests.unit.run_probe")


Tried = list[list[str]]


def _told(call: Callable[[], Any]) -> list[str]:
    with pytest.raises(InvalidInput) as told:
        call()
    found: list[str] = json.loads(told.value.message)
    return found


def _archive(folder: Path, tried: Tried) -> list[str]:
    source, target = folder / "upload.zip", folder / "unpacked"
    source.write_text(json.dumps(tried))
    target.mkdir()
    return _told(
        lambda: unpack(
            source=source,
            suffix=".zip",
            target=target,
            limits=MediaLimits(),
            max_bytes=10**6,
            columns=[],
            optional=[],
            media={},
        )
    )


def _previews(folder: Path, tried: Tried) -> list[str]:
    (folder / "image").write_text(json.dumps(tried))
    (folder / "previews").mkdir()
    return _told(lambda: make_previews([folder / "image"], [], folder / "previews"))


def _document(folder: Path, tried: Tried) -> list[str]:
    (folder / "document").write_text(json.dumps(tried))
    return _told(lambda: extract_text(folder / "document", ".pdf", owner=""))


def _delivery(folder: Path, tried: Tried) -> list[str]:
    (folder / "tried").write_text(json.dumps(tried))
    (finding,) = check_bounded(folder, Limits(max_bytes=10**6))
    found: list[str] = json.loads(finding.detail)
    return found


def _rows(folder: Path, tried: Tried) -> list[str]:
    (folder / "rows").write_text(json.dumps(tried))
    search = Search("x", ("text",), 10, None, False, 1, 20, 20, 10**6, 5.0, 10)
    ((_, told),) = search_file(folder / "rows", search)["rows"]
    found: list[str] = json.loads(told)
    return found


def _frames(folder: Path, tried: Tried) -> list[str]:
    (folder / "video").write_text(json.dumps(tried))
    return _told(
        lambda: video_process.take_frames(
            folder / "video", "video/mp4", 2, MediaLimits(), "The video"
        )
    )


def _request_file(folder: Path, tried: Tried) -> list[str]:
    decoding = decoders.Decoders(MediaLimits())
    data = b"GIF89a" + json.dumps(tried).encode()
    try:
        return _told(lambda: decoding.measure(data, kind="image", what="x"))
    finally:
        decoding.close()


def _prompt(folder: Path, tried: Tried) -> list[str]:
    setup = {
        "tokenizer": None,
        "template": None,
        "special_tokens": {},
    }
    source = bounded.prompt_source(setup, bounded.Limits())
    process = source.process()
    try:
        asked = {"do": "render", "template": json.dumps(tried), "messages": []}
        found: list[str] = json.loads(process.ask(asked))
        return found
    finally:
        process.close()
        source.close()


def _own_engine(folder: Path, tried: Tried) -> list[str]:
    own = OwnEngines()
    (folder / "tried").write_text(json.dumps(tried))
    engine = own.load("tests.unit.workers.process_engine:ProcessEngine", folder, root=folder)
    answer = Answer()
    engine.submit(prompted("r1", {"prompt": "probe"}), answer)
    (found,) = answer.done().results or []
    engine.close()
    return list(found)


def _server(folder: Path, tried: Tried) -> list[str]:
    return accesses({"own": [str(folder)]}, tried)


def _run(folder: Path, tried: Tried) -> list[str]:
    (folder / "tried").write_text(json.dumps(tried))
    launcher = local.LocalLauncher()
    handle = launcher.submit(folder, Resources())
    while (ended := launcher.poll(handle)) is None:
        time.sleep(0.01)
    logs = launcher.logs(handle)
    launcher.forget(handle)
    launcher.end_all()
    assert ended.status == 0, logs
    found: list[str] = json.loads((folder / "found").read_text())
    return found


READERS = {
    "archive": _archive,
    "previews": _previews,
    "document": _document,
    "delivery": _delivery,
    "rows": _rows,
    "frames of a video": _frames,
    "file of a request": _request_file,
    "prompt": _prompt,
}
MODELS = {"own engine": _own_engine, "server": _server, "run": _run}


@pytest.mark.parametrize("name", [*READERS, *MODELS])
@pytest.mark.usefixtures("probed")
def test_a_process_reaches_nothing_of_the_process_that_starts_it(
    name: str, outside: Outside, tmp_path: Path
) -> None:
    tried = outside.tried | (outside.tried_by_readers if name in READERS else {})
    if landlock.abi() < 6 and name in MODELS:
        tried = {way: use for way, use in tried.items() if way[0] not in ("signal", "connect")}
    found = {**READERS, **MODELS}[name](tmp_path, [list(each) for each in tried])
    reached = {
        way: use for (way, use), told in zip(tried.items(), found, strict=True) if told == "done"
    }
    assert reached == {}
    assert (outside.folder / "secret").read_text() == "secret"


# Servers are started with an environment that holds nothing of ours (`ServerProcess`).
@pytest.mark.parametrize("name", [*READERS, "own engine", "run"])
@pytest.mark.usefixtures("probed")
def test_a_process_has_no_secret_and_no_file_of_the_process_that_starts_it(
    name: str, tmp_path: Path
) -> None:
    names, files = {**READERS, **MODELS}[name](tmp_path, [["names", ""], ["files", ""]])
    assert not SECRETS.keys() & set(json.loads(names))
    # Its channel, the file that it reads, and what libraries open for themselves.
    assert int(files) <= 6


@pytest.mark.parametrize("name", ["archive", "previews", "frames of a video"])
@pytest.mark.usefixtures("probed")
def test_a_reader_cannot_leave_a_link_for_whoever_reads_its_folder(
    name: str, tmp_path: Path
) -> None:
    if not system_calls.filters():
        pytest.skip("no filter of system calls for this machine")
    own = {"archive": "unpacked", "previews": "previews"}.get(name, "elsewhere")
    (told,) = READERS[name](tmp_path, [["link", str(tmp_path / own / "link")]])
    assert told in ("Operation not permitted", "Permission denied")


def test_processes_work_where_the_kernel_has_no_landlock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    decoding = decoders.Decoders(MediaLimits())
    assert decoding.measure(picture(), kind="image", what="x").width == 64
    decoding.close()
    (tmp_path / "text").write_text("One.")
    assert extract_text(tmp_path / "text", ".txt", owner="") == "One."
    setup = {"tokenizer": None, "template": None, "special_tokens": {}}
    source = bounded.prompt_source(setup, bounded.Limits())
    process = source.process()
    assert process.ask({"do": "render", "template": "Two.", "messages": []}) == b"Two."
    process.close()
    source.close()


@pytest.mark.parametrize("module", ["assay.asgi", "workers.app", "django"])
def test_a_process_that_holds_secrets_is_hidden(module: str) -> None:
    code = (
        f"import {module}, ctypes, sys; from django.conf import settings; settings.DATABASES;"
        "sys.exit(ctypes.CDLL(None).prctl(3))"  # PR_GET_DUMPABLE
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
