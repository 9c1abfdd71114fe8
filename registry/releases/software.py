"""The software that a dossier names: the packages of its task, and what computes its answers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version as installed_version
from typing import Any

from registry.catalog import get_task, task_code, unavailable_reason
from registry.catalog.code import NO_PACKAGES, TaskCode
from registry.releases.models import Release

# Packages of a task with more files than this are named by digest and number of files.
FILES_LISTED = 500
CODE_DIFFERS = "release_code_differs"
# Dossiers that were frozen before they named code: a task of Assay has no packages.
BEFORE: Mapping[str, Any] = {"digest": NO_PACKAGES.digest, "packages": []}


def installed_code(task: str) -> TaskCode:
    """Return the code of a task in this process. Raises InvalidInput: the task is unavailable."""
    get_task(task)
    # It was hashed before the task was loaded; without it nothing serves.
    return task_code(task) or NO_PACKAGES


def code_section(task: str) -> dict[str, Any]:
    """Return the dossier's list of a task's packages: what this process has. Raises as
    `installed_code`."""
    code = installed_code(task)
    listed = sum(len(each.files) for each in code.packages) <= FILES_LISTED
    return {
        "digest": code.digest,
        "packages": [
            {
                "name": each.name,
                "version": each.version,
                "digest": each.digest,
                "file_count": len(each.files),
                "files": [
                    {"path": file.path, "size": file.size, "sha256": file.sha256}
                    for file in each.files
                ]
                if listed
                else [],
            }
            for each in code.packages
        ],
    }


def assay_version() -> str:
    """Return the version of Assay that is installed here."""
    return installed_version("assay")


def code_named(dossier: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the list of packages that a dossier of any format names."""
    software = (dossier or {}).get("software") or {}
    named: Mapping[str, Any] = software.get("code") or BEFORE
    return named


def evaluated_with(measured: Mapping[str, Any]) -> str:
    """Return the digest of the packages that an evaluation ran with, from its details or from a
    dossier's entry of it."""
    return str(measured.get("code") or BEFORE["digest"])


def packages_in_words(packages: Any) -> str:
    """Return the packages of a dossier by name and version."""
    named = (f"{each['name']} {each['version'] or '(not installed)'}" for each in packages)
    return ", ".join(named) or NO_PACKAGES.title


def code_difference(task: str, digest: str, packages: str) -> str:
    """Say how the code of a task in this process differs from that of a dossier, whose digest and
    packages in words these are; empty when it does not."""
    code = task_code(task)
    if code is not None and code.digest == digest:
        return ""
    named = f"the dossier names {packages} (code {digest[:12]})"
    if code is None:
        return f"{task} cannot be used here, and {named}: {unavailable_reason(task)}"
    return f"{task} is provided by {code.title} (code {code.digest[:12]}) here, and {named}"


def code_changed(release: Release) -> str:
    """Say how the code of its task in this process differs from the dossier's, as
    `code_difference`."""
    named = code_named(release.dossier)
    packages = packages_in_words(named["packages"])
    return code_difference(release.version.model.task, named["digest"], packages)
