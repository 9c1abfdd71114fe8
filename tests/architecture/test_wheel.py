"""A wheel built from the repository holds all that is not Python too, and runs somewhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.live  # builds and runs a package: too slow for the inner loop
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(folder), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(folder.glob("assay-*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_templates_assets_rules_and_scripts(unpacked: Path) -> None:
    for pattern in (
        "assay/portal/templates/portal/*.html",
        "assay/portal/static/assay.css",
        "assay/portal/static/vendor/*/*",
        "governance/quotas/quotas.lua",
        "governance/policy/default.yaml",
        "governance/migrations/0003_review_separation.py",
    ):
        assert list(unpacked.glob(pattern)), pattern
    assert not (unpacked / "tests").exists()
    assert not (unpacked / "platform").exists()


def test_the_wheel_runs_elsewhere(unpacked: Path, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c",
         "import assay, sys; print(assay.__file__);"
         "sys.argv = ['assay', 'manage', 'check'];"
         "from assay.cli.main import main; main()"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert str(unpacked) in finished.stdout
    assert "no issues" in finished.stdout
