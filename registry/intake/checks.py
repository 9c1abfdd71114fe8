"""Intake rules: an allow-list of names and contents. Pure: a folder in, findings out."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from governance.errors import InvalidInput
from registry.intake.formats import (
    RejectedFile,
    check_json,
    check_safetensors,
    check_sentencepiece,
    check_text,
    container_kind,
    is_pickle,
)
from registry.intake.gguf import check_gguf
from registry.intake.layouts import check_adapter, check_layout
from registry.intake.onnx import EXTERNAL_SUFFIXES, check_external_data, check_onnx
from registry.manifests import check_path

FORMATS: dict[str, Callable[[Path], str]] = {
    ".gguf": check_gguf,
    ".jinja": check_text,
    ".json": check_json,
    ".md": check_text,
    ".model": check_sentencepiece,
    ".onnx": check_onnx,
    ".safetensors": check_safetensors,
    ".txt": check_text,
    **dict.fromkeys(EXTERNAL_SUFFIXES, check_external_data),
}
# Files that traditionally have no suffix.
PLAIN_NAMES = {"LICENSE", "NOTICE", "README", "USE_POLICY"}
PICKLE_ADVICE = (
    "is a Python pickle: loading it can run code. Convert it to safetensors and submit that."
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one delivery, in bytes and number of files, and whether it is an `adapter`."""

    max_bytes: int
    max_files: int = 512
    adapter: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `detail` is a sentence for a person."""

    check: str
    passed: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_delivery(folder: Path, limits: Limits) -> list[Finding]:
    """Return the findings of all checks of `folder`; a delivery proceeds only if all pass."""
    files, findings = _collect(folder)
    if not findings:
        findings.append(Finding("names", True, f"{_files(len(files))}, each with a plain name."))
    total = sum((folder / path).stat().st_size for path in files)
    within = total <= limits.max_bytes and len(files) <= limits.max_files
    findings.append(
        Finding(
            "size",
            within,
            f"{_files(len(files))}, {total:,} bytes; at most {limits.max_files:,} files and "
            f"{limits.max_bytes:,} bytes are accepted.",
        )
    )
    if not within:
        return findings
    findings.extend(check_file(folder / path, path) for path in files)
    findings.append(_check_weights(folder, files, limits))
    return findings


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def check_names(names: list[str]) -> list[Finding]:
    """Return failed findings for unsafe names, and names that some filesystems treat as equal."""
    findings: list[Finding] = []
    seen: set[str] = set()
    for name in names:
        try:
            check_path(name)
        except InvalidInput as error:
            findings.append(Finding("names", False, error.message))
            continue
        folded = unicodedata.normalize("NFKC", name).casefold()
        if folded in seen:
            findings.append(
                Finding("names", False, f"{name} occurs twice, or differs only in letter case.")
            )
        seen.add(folded)
    return findings


def check_file(file: Path, name: str) -> Finding:
    """Check one file, first by its content, then by its name."""
    try:
        if is_pickle(file):
            return Finding("format", False, f"{name} {PICKLE_ADVICE}")
        if word := container_kind(file):
            raise RejectedFile(f"it is {word}")
        suffix = PurePosixPath(name).suffix.lower()
        checker = check_text if PurePosixPath(name).name in PLAIN_NAMES else FORMATS.get(suffix)
        if checker is None:
            accepted = ", ".join(sorted(FORMATS))
            raise RejectedFile(f"files of this kind are not accepted; accepted are {accepted}")
        return Finding("format", True, f"{name}: {checker(file)}.")
    except RejectedFile as refused:
        return Finding("format", False, f"{name} was rejected: {refused}.")


def _collect(folder: Path) -> tuple[list[str], list[Finding]]:
    """Return the plain files below `folder` as relative paths, and findings for all others."""
    files: list[str] = []
    findings: list[Finding] = []
    for at, folders, names in os.walk(folder, followlinks=False):
        here = Path(at)
        for name in (*folders, *names):
            path = here / name
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                findings.append(Finding("links", False, f"{relative} is a symbolic link."))
            elif path.is_file():
                files.append(relative)
            elif not path.is_dir():
                findings.append(Finding("links", False, f"{relative} is not a plain file."))
    files.sort()
    return files, findings + check_names(files)


def _check_weights(folder: Path, files: list[str], limits: Limits) -> Finding:
    try:
        layout = check_adapter(files) if limits.adapter else check_layout(folder, files)
        return Finding("weights", True, layout)
    except RejectedFile as refused:
        return Finding("weights", False, str(refused))
