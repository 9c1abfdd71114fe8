"""The software that a dossier names, as blocks of its section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry.releases.equivalence.services import versions_in_words
from registry.releases.equivalence.standing import ALARM
from registry.releases.exports.blocks import Block
from registry.releases.exports.words import worded
from registry.releases.software import code_named

FILES_SHOWN = 200
NO_PACKAGES = "Assay itself provides the task; no other package does."


def software_blocks(dossier: Mapping[str, Any]) -> Sequence[Block]:
    """Return the packages of the task, the versions that evaluate and serve, and the consequence
    of an upgrade."""
    software = dossier["software"]
    code = code_named(dossier)
    serves = [versions_in_words(each) for each in software["serves_with"]]
    blocks = [
        Block(
            facts=(
                ("Assay", worded(software["assay"])),
                ("Code of the task", worded(code["digest"])),
                ("Workers have", "; ".join(serves) or "no worker offered its engine"),
                *_upgrades(software["equivalence"]),
            )
        )
    ]
    if not code["packages"]:
        return [*blocks, Block(text=NO_PACKAGES)]
    blocks.append(
        Block(
            title="Packages of the task",
            heads=("Package", "Version", "Files", "SHA-256 of the list"),
            rows=tuple(
                (
                    each["name"],
                    each["version"] or "not installed",
                    worded(each["file_count"]),
                    each["digest"],
                )
                for each in code["packages"]
            ),
        )
    )
    return [*blocks, *_files(code["packages"])]


def _upgrades(section: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    consequence = "an alarm" if section["policy"] == ALARM else "it is suspended there"
    if not section["rows"]:
        return (
            ("After an upgrade", f"Nothing to compare with: {section['because']}"),
            ("With software that it was not approved with", consequence.capitalize()),
        )
    tolerance = section["tolerance"]
    return (
        (
            "After an upgrade",
            f"{section['rows']} requests of evaluation {section['evaluation']} are answered again, "
            f"and compared with the answers of {versions_in_words(section['environment'])}",
        ),
        (
            "Tolerance",
            f"texts are equal; numbers differ by at most {tolerance['absolute']:g}, or "
            f"{tolerance['relative']:.1%} of their value",
        ),
        ("When they differ", consequence.capitalize()),
        ("Digest of these answers", section["reference"]),
    )


def _files(packages: Sequence[Mapping[str, Any]]) -> Sequence[Block]:
    rows = [
        (f"{each['name']}: {file['path']}", f"{file['size']:,}", file["sha256"])
        for each in packages
        for file in each["files"]
    ]
    if not rows:
        return [Block(text="They have too many files to list; their digests cover all of them.")]
    blocks = [
        Block(
            title="Files of the packages",
            heads=("Path", "Bytes", "SHA-256"),
            rows=tuple(rows[:FILES_SHOWN]),
        )
    ]
    if len(rows) > FILES_SHOWN:
        left = len(rows) - FILES_SHOWN
        blocks.append(Block(text=f"And {left} more, in the dossier's JSON."))
    return blocks
