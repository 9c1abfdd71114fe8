"""An environment with other people's clients, and one program for each of them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[2] / ".cache"
INSTALL_S, ASK_S = 300, 120
# As uv says it. Anything else, such as another file under a pinned name, is a failure.
OFFLINE = re.compile(r"error sending request|dns error|tcp connect error|operation timed out")


def asked(program: str, url: str, key: str, *, timeout_s: float = ASK_S, **environment: str) -> Any:
    """Run `ask_{program}.py` against a server and return what it prints."""
    finished = subprocess.run(
        [python_of(), "-W", "ignore", HERE / f"ask_{program}.py", url, key],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout.splitlines()[-1])


def python_of(pins: Path = HERE / "requirements.txt") -> Path:
    """Return the interpreter of the environment with these pins; create it if it is missing."""
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    folder = CACHE / f"clients-{digest}"
    CACHE.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        # Test processes that run side by side make it once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _make(folder, pins)
    return folder / "bin" / "python"


def _index() -> str:
    """Return the package index that pip is told to use: uv reads none of pip's configuration."""
    for place in (":env:", "global"):
        found = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", f"{place}.index-url"],
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode == 0:
            return found.stdout.strip()
    return "https://pypi.org/simple"


def _make(folder: Path, pins: Path) -> None:
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    uv = Path(sys.executable).with_name("uv")
    environment = {"UV_DEFAULT_INDEX": _index(), **os.environ, "UV_SYSTEM_CERTS": "1"}
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, partial],
        [uv, "pip", "install", "--quiet", "--python", partial / "bin" / "python",
         "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", pins],
    ):  # fmt: skip
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=INSTALL_S,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"The package index did not give the clients within {INSTALL_S} s.")
        if done.returncode and OFFLINE.search(done.stderr):
            pytest.skip(f"The package index cannot be reached: {done.stderr[-300:]}")
        assert done.returncode == 0, done.stderr[-3000:]
    partial.rename(folder)
