"""The rules that keep the folders apart, checked on the code and on a running interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "peft", "accelerate", "cv2", "boto3")


def test_platform_is_a_source_root_and_not_a_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists(), (
        "platform/__init__.py shadows the standard library's platform module: delete it."
    )


def test_the_standard_library_platform_module_is_the_one_imported() -> None:
    import platform

    assert platform.python_version() == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.sweep
@pytest.mark.parametrize(
    "module",
    [
        "assay.asgi",
        "assay.urls",
        "workers.app",
        "workers.controller",
        "workers.dispatch",
        "workers.tasks.inference",
        "workers.engine_process.server",
    ],
)
def test_control_processes_load_no_model_library(module: str) -> None:
    """In a fresh interpreter, so that what other tests imported does not count."""
    program = (
        "import os, sys; os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'assay.settings');"
        f"import django; django.setup(); import importlib; importlib.import_module({module!r});"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("package", ["workers.engines.protocol", "workers.trainers.protocol"])
def test_engines_and_trainers_know_no_django(package: str) -> None:
    program = f"import sys; import {package}; print('django' in sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "False"


@pytest.mark.parametrize("module", ["registry.datasets.unpacking", "registry.intake.bounded"])
def test_processes_of_one_upload_load_little(module: str) -> None:
    """One is started for each upload; Django or pydantic would take most of its time."""
    program = f"import sys; import {module}; print({{'django', 'pydantic'}} & set(sys.modules))"
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "set()"


def _environment() -> dict[str, str]:
    import os

    paths = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    return {**os.environ, "PYTHONPATH": paths}
