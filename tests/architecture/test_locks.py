"""Everything that is installed is pinned by hash, and the tests run with those versions."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ADVICE = "run .venv/bin/python tools/lock.py"


@dataclass(frozen=True)
class Pin:
    requirement: Requirement
    version: str
    hashes: int


def pins(*files: str) -> dict[str, Pin]:
    """The pins of these lock files by package."""
    found = {}
    for file in files:
        for entry in re.split(r"\n(?=\S)", (ROOT / "locks" / f"{file}.txt").read_text()):
            if entry.startswith("#"):
                continue
            head, *hashes = entry.strip().split(" \\\n")
            requirement = Requirement(head)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", head
            assert all(re.fullmatch(r"\s*--hash=sha256:[0-9a-f]{64}", line) for line in hashes)
            name = canonicalize_name(requirement.name)
            # Twice where one file needs it on some platforms only.
            if name in found:
                assert found[name].version == specifier.version, f"{name} is locked twice"
            found[name] = Pin(requirement, specifier.version, len(hashes))
    return found


@pytest.mark.parametrize(
    ("wanted", "files"),
    [
        (PROJECT["dependencies"], ["control"]),
        (EXTRAS["worker"], ["control", "worker", "torch"]),
        (EXTRAS["local"], ["control", "worker", "local"]),
        (EXTRAS["dev"], ["control", "worker", "local", "dev"]),
        (["mlflow>=3.17,<3.18", "psycopg"], ["mlflow"]),
        (["hatchling>=1.27"], ["build"]),
        (["uv"], ["uv"]),
    ],
)
def test_every_dependency_is_locked_at_a_version_that_it_allows(
    wanted: list[str], files: list[str]
) -> None:
    locked = pins(*files)
    assert all(pin.hashes for pin in locked.values())
    for text in wanted:
        requirement = Requirement(text)
        pin = locked.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{text} is not locked; {ADVICE}"
        assert requirement.specifier.contains(pin.version), f"{text}: {pin.version}; {ADVICE}"


def test_the_control_image_is_locked_without_torch() -> None:
    assert not {"torch", "transformers", "peft", "accelerate"} & set(pins("control"))
    assert "torch" in pins("torch")


def test_the_tests_run_with_what_is_locked() -> None:
    other = {}
    for name, pin in pins("control", "worker", "local", "dev").items():
        if pin.requirement.marker is not None and not pin.requirement.marker.evaluate():
            continue
        installed = importlib.metadata.version(name)
        if installed != pin.version:
            other[name] = (installed, pin.version)
    assert not other


@pytest.mark.parametrize("file", ["docker/Dockerfile", "docker/mlflow.Dockerfile"])
def test_images_install_by_hash_and_our_own_wheel_alone_without(file: str) -> None:
    text = (ROOT / file).read_text().replace("\\\n", " ")
    commands = re.findall(r"pip install ([^&\n]*)", text)
    assert commands
    for command in commands:
        own = command.split() == ["--no-deps", "/wheels/*.whl"]
        assert own or "--require-hashes" in command, command
