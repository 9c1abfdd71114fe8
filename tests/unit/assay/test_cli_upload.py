"""`assay upload` against a real server, over a connection that breaks."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import transaction

from assay.cli import uploads
from governance.keys.services import access_token_create
from governance.people.models import Person
from registry.datasets.models import DatasetVersion
from registry.intake.models import Intake
from registry.uploads import files
from registry.uploads.models import Upload
from tests.proofs import fresh_proof
from tests.unit.assay.portal_data import tell_story
from tests.unit.assay.test_cli import Run, run
from tests.unit.registry.objects import safetensors

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]

__all__ = ["run"]
PART = 64 * 1024
WEIGHTS = safetensors(
    {"weight": {"dtype": "F32", "shape": [100_000], "data_offsets": [0, 400_000]}}, b"\1" * 400_000
)


class Breaking:
    """A TCP proxy that cuts its first connections after so many bytes."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self._port, self._cuts = port, cuts
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.broken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            budget = self._cuts.pop(0) if self._cuts else None
            for source, target, limit in ((client, server, budget), (server, client, None)):
                threading.Thread(
                    target=self._copy, args=(source, target, limit), daemon=True
                ).start()

    def _copy(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)
                passed += len(data)
                if limit is not None and passed > limit:
                    self.broken += 1
                    break
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def breaking(
    redis: object, live_server: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[list[int]], Breaking]]:
    """Signs Devi in over a proxy that cuts connections after these numbers of bytes."""
    with transaction.atomic():
        tell_story()
    monkeypatch.setattr(uploads, "CHUNK", PART)
    monkeypatch.setattr(uploads, "LONGEST_WAIT_S", 0.05)
    _, token = access_token_create(
        person=Person.objects.get(email="devi@assay.example"), name="cli", proof=fresh_proof()
    )
    made: list[Breaking] = []

    def begin(cuts: list[int]) -> Breaking:
        proxy = Breaking(urlsplit(live_server.url).port or 0, cuts)
        made.append(proxy)
        monkeypatch.setenv("ASSAY_SERVER", proxy.url)
        monkeypatch.setenv("ASSAY_TOKEN", token)
        return proxy

    yield begin
    for proxy in made:
        proxy.close()
    for path in files.folder().iterdir() if files.folder().is_dir() else ():
        path.unlink()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "delivery"
    found.mkdir()
    (found / "config.json").write_bytes(b'{"model_type": "llama"}')
    (found / "model.safetensors").write_bytes(WEIGHTS)
    return found


UPLOAD = ("upload", "model", "docstring-writer")
ABOUT = ("--source", "a supplier", "--license", "MIT")


def test_a_connection_that_breaks_costs_a_part_and_not_the_upload(
    breaking: Callable[[list[int]], Breaking], run: Run, folder: Path
) -> None:
    proxy = breaking([150_000, 100_000, 30_000])
    _, out, _ = run(*UPLOAD, str(folder), *ABOUT, code=0)
    assert proxy.broken >= 2
    intake = Intake.objects.latest("pk")
    assert (intake.state, intake.source) == ("checking", "a supplier")
    assert str(intake.pk) in out
    found = {each["name"]: each["sha256"] for each in intake.files}
    assert found["model.safetensors"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert not Upload.objects.exists()


def test_the_same_command_resumes_what_was_cut_off(
    breaking: Callable[[list[int]], Breaking],
    run: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaking([200_000])
    with monkeypatch.context() as once:
        once.setattr(uploads, "ATTEMPTS", 0)
        _, _, err = run(*UPLOAD, str(folder), *ABOUT, code=1)
    assert "cannot be reached" in err
    half = Upload.objects.get(filename="model.safetensors")
    assert 0 < half.received < half.size
    _, _, err = run(*UPLOAD, str(folder), *ABOUT, code=0)
    # A part whose answer was lost may have been stored meanwhile.
    found = re.search(r"model.safetensors: resuming at ([\d,]+) of 400,084 bytes", err)
    assert found is not None
    assert half.received <= int(found[1].replace(",", "")) < half.size
    assert Intake.objects.latest("pk").state == "checking"


def test_a_dataset_is_uploaded_in_parts(
    breaking: Callable[[list[int]], Breaking], run: Run, tmp_path: Path
) -> None:
    breaking([])
    rows = tmp_path / "rows.jsonl"
    line = '{{"messages": [{{"role": "user", "content": "Say {0}"}}, ' + (
        '{{"role": "assistant", "content": "{0}"}}]}}\n'
    )
    rows.write_text("".join(line.format(number) for number in range(2000)))
    _, out, _ = run("upload", "dataset", "docstrings-train", str(rows), code=0)
    assert "2000" in out.replace(",", "")
    assert DatasetVersion.objects.latest("pk").rows == 2000


def test_what_cannot_be_uploaded_says_so(
    breaking: Callable[[list[int]], Breaking], run: Run, folder: Path, tmp_path: Path
) -> None:
    breaking([])
    _, _, err = run(*UPLOAD, str(folder), *ABOUT, "--base", "999999", code=4)
    assert "Version 999999 does not exist, or you may not see it" in err
    (tmp_path / "empty.json").touch()
    _, _, err = run(*UPLOAD, str(tmp_path / "empty.json"), *ABOUT, code=1)
    assert "is empty" in err
    _, _, err = run("upload", "model", "nothing-such", str(tmp_path), *ABOUT, code=4)
    assert "does not exist, or you may not see it" in err
