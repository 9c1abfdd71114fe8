"""The software in a dossier: the packages of its task, and the version of Assay."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version as installed_version
from typing import Any

from registry.catalog import get_task, task_code, unavailable_reason
from registry.catalog.code import NO_PACKAGES, TaskCode
from registry.releases.models import Release

# If a task's packages have more files than this, the dossier has only their number and digest.
FILES_LISTED = 500
CODE_DIFFERS = "release_code_differs"


def installed_code(task: str) -> TaskCode:
    """Return the code of a task in this process. Raise InvalidInput if it is unavailable."""
    get_task(task)
    # It was hashed before the task was loaded; without a digest, nothing serves.
    return task_code(task) or NO_PACKAGES


def code_section(task: str) -> dict[str, Any]:
    """Return the dossier's list of a task's packages, as installed here. Raises as
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
    """Return the list of packages that a dossier names."""
    named: Mapping[str, Any] = dossier["software"]["code"]
    return named


def evaluated_with(measured: Mapping[str, Any]) -> str:
    """Return the digest of the packages that an evaluation ran with, from its details or its entry
    in a dossier."""
    return str(measured.get("code") or NO_PACKAGES.digest)


def packages_in_words(packages: Any) -> str:
    """Return the packages of a dossier by name and version."""
    named = (f"{each['name']} {each['version'] or '(not installed)'}" for each in packages)
    return ", ".join(named) or NO_PACKAGES.title


def code_difference(task: str, digest: str, packages: str) -> str:
    """Return in words how the code of a task in this process differs from that of a dossier with
    this digest and these packages in words; empty if it does not."""
    code = task_code(task)
    if code is not None and code.digest == digest:
        return ""
    expected = f"the dossier names {packages} (code {digest[:12]})"
    if code is None:
        return f"{task} cannot be used here, and {expected}: {unavailable_reason(task)}"
    return f"{task} is provided by {code.title} (code {code.digest[:12]}) here, and {expected}"


def code_changed(release: Release) -> str:
    """Return how the code of its task in this process differs from the dossier's, as
    `code_difference`."""
    code = code_named(release.dossier)
    packages = packages_in_words(code["packages"])
    return code_difference(release.version.model.task, code["digest"], packages)
