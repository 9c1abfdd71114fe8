"""`assay up` and `assay demo` without what they need, and whose database commands use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from assay.cli import local
from assay.cli.main import execute


def refusal(*arguments: str) -> None:
    """Run `assay …`, which must fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["assay", *arguments])
        with pytest.raises(SystemExit) as ended:
            execute()
    assert ended.value.code == 1


def test_the_demo_is_a_package_that_can_be_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "COMMANDS", "assay.commands_of_nobody")
    refusal("demo", "--check")
    said = " ".join(capsys.readouterr().err.split())
    assert "The demo is a separate package, which is not installed." in said
    assert "the wheel assay_demo-*.whl of the same version" in said


def test_up_names_the_extra_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "_EXTRAS", {"worker": "a-package-of-nobody"})
    refusal("up")
    said = " ".join(capsys.readouterr().err.split())
    assert "The extra worker of Assay is not installed." in said
    assert "pip install 'assay[local,worker] @ file:///" in said


def test_commands_use_the_stores_of_this_folder_unless_a_setting_names_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL")
    assert not local.runs_locally()
    assert local.runs_locally(begins=True)
    (tmp_path / local.FOLDER).mkdir(parents=True)
    assert local.runs_locally()
    monkeypatch.setenv("DATABASE_URL_FILE", "/run/secrets/database")
    assert not local.runs_locally()
    assert not local.runs_locally(begins=True)
