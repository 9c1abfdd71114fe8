"""Comparison of the packages that two dossiers name, and of their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from registry.releases.comparison.fields import Fields, field_changes
from registry.releases.comparison.files import Files, files_compared
from registry.releases.software import code_named


@dataclass(frozen=True, slots=True)
class Packages:
    """Versions of the packages by name, and their files. `unlisted` names packages whose files
    differ or are new, where a dossier lists none because they are too many."""

    versions: Fields
    files: Files
    unlisted: list[str]


def packages_compared(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> Packages:
    """Compare the packages of the dossier `new` with those of `old`, if there is one."""
    after = {each["name"]: each for each in code_named(new)["packages"]}
    before = {each["name"]: each for each in code_named(old)["packages"]} if old else {}
    listed = [
        _files(each.values())
        for each in (after, before)
        if all(package["files"] or not package["file_count"] for package in each.values())
    ]
    both = listed if len(listed) == 2 else [[], []]
    return Packages(
        versions=field_changes(_words(after), _words(before) if old else None),
        files=files_compared(both[0], both[1] if old else None),
        unlisted=[
            name
            for name, each in after.items()
            if len(listed) < 2 and before.get(name, {}).get("digest") != each["digest"]
        ],
    )


def _words(packages: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {
        name: f"{each['version'] or 'not installed'} · {each['digest'][:12]}"
        for name, each in packages.items()
    }


def _files(packages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**file, "path": f"{each['name']}: {file['path']}"}
        for each in packages
        for file in each["files"]
    ]
