"""Versions of the code that computes answers on this machine, by engine. Loads none of it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import site
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from registry.catalog.engines import EngineName

# Libraries of the runners, engines and decoders of Assay's own engines.
LIBRARIES = (
    "torch", "transformers", "diffusers", "peft", "timm", "tokenizers", "safetensors",
    "onnxruntime", "scikit-learn", "numpy", "pillow", "soundfile", "opencv-python-headless",
)  # fmt: skip
# Folders of Assay's code that computes or passes on answers.
_OWN = ("tasks", "registry/catalog", "registry/media", "workers/engines", "workers/engine_process")
_DIGITS = 12


def environment_of(engine: str, version: str = "") -> dict[str, str]:
    """Return the versions on which answers of an engine depend; pass `version` for an engine of
    another project."""
    if engine == EngineName.HOSTED:
        # The provider computes the answers, with software that it does not state.
        return {str(engine): version}
    versions = {"assay": assay_build(), "python": platform.python_version()}
    if engine != EngineName.OWN:
        return {**versions, str(engine): version}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = _version(name)
    if code := start_up_code():
        versions["start-up code"] = code
    return versions


def _version(name: str) -> str:
    """Return the version of a library, and the folder of any module that hides it."""
    installed = importlib.metadata.distribution(name)
    module = {"scikit-learn": "sklearn", "pillow": "PIL", "opencv-python-headless": "cv2"}
    spec = importlib.util.find_spec(module.get(name, name))
    place = Path(spec.origin) if spec is not None and spec.origin else None
    root = Path(str(installed.locate_file(""))).resolve()
    if place is not None and not place.resolve().is_relative_to(root):
        return f"{installed.version} (hidden by {place.parent})"[:80]
    return installed.version


@cache
def assay_build() -> str:
    """Return Assay's version, and the beginning of the digest of its code in `_OWN`."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for folder in _OWN:
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return f"{importlib.metadata.version('assay')}+{digest.hexdigest()[:_DIGITS]}"


@cache
def start_up_code() -> str:
    """Return the beginning of the digest of the local start-up code (`sitecustomize`, `.pth` files)
    that Python runs; empty without such code."""
    digest, has_code = hashlib.sha256(), False
    for file in _start_up_files():
        with suppress(OSError):
            digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
            has_code = True
    return digest.hexdigest()[:_DIGITS] if has_code else ""


def _start_up_files() -> Iterator[Path]:
    for name in ("sitecustomize", "usercustomize"):
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if loaded:
            yield Path(loaded)
    folders = [*site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    for folder in folders:
        for file in sorted(Path(folder).glob("*.pth")) if os.path.isdir(folder) else ():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            if any(line.startswith(("import ", "import\t")) for line in lines):
                yield file
