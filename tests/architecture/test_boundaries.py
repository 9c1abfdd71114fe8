"""The rules that keep the folders apart, checked on the code and on a running interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.interpreters import run_program

ROOT = Path(__file__).resolve().parents[2]
CONTROL = (
    "assay.asgi",
    "assay.urls",
    "workers.app",
    "workers.controller",
    "workers.dispatch",
    "workers.celery_tasks.inference",
    "workers.engine_process.server",
)
HEAVY = ("torch", "transformers", "peft", "accelerate", "cv2", "boto3")


def test_platform_is_a_source_root_and_not_a_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists(), (
        "platform/__init__.py shadows the standard library's platform module: delete it."
    )


def test_the_standard_library_platform_module_is_the_one_imported() -> None:
    import platform

    assert platform.python_version() == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.sweep
def test_control_processes_load_no_model_library() -> None:
    """Each in an interpreter of its own, so that what others imported does not count."""
    program = f"""
import importlib, os, sys
import django
django.setup()
for module in {CONTROL!r}:
    if os.fork() == 0:
        importlib.import_module(module)
        print(module, [name for name in {HEAVY!r} if name in sys.modules], flush=True)
        os._exit(0)
    os.wait()
"""
    finished = run_program(program, {**os.environ, "DJANGO_SETTINGS_MODULE": "assay.settings"})
    assert finished.stdout.splitlines() == [f"{module} []" for module in CONTROL], finished.stderr


@pytest.mark.parametrize("package", ["workers.engines.protocol", "workers.trainers.protocol"])
def test_engines_and_trainers_know_no_django(package: str) -> None:
    program = f"import sys; import {package}; print('django' in sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "False"


@pytest.mark.parametrize(
    "module",
    ["registry.datasets.row_search", "registry.datasets.unpacking", "registry.intake.bounded"],
)
def test_processes_of_one_upload_load_little(module: str) -> None:
    """One is started for each upload or search; Django or pydantic would take most of its time."""
    program = f"import sys; import {module}; print({{'django', 'pydantic'}} & set(sys.modules))"
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "set()"
