"""A dossier's sections with people's names, which the dossier itself does not contain.

The dossier names people by number, so that erasing someone does not change its digest. Pages and
PDFs are for reading, and name people as they are named at the time of the export.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from governance.people.mentions import people_mentioned, people_names, with_names
from registry.releases.exports.blocks import Block, Section
from registry.releases.exports.sections import dossier_sections

# Sections that show texts exactly as the model reads them, and code.
_EXACT = frozenset({"prompt", "code", "files"})


def named_sections(
    dossier: Mapping[str, Any],
    names_of: Callable[[Collection[int]], Mapping[int, str]] = people_names,
) -> list[Section]:
    """Return the sections of a dossier with names of people, and a last section that lists each
    named person's number."""
    sections = dossier_sections(dossier)
    texts = (
        text
        for section in sections
        if section.code not in _EXACT
        for block in section.blocks
        for text in _texts(block)
    )
    names = names_of({person for text in texts for person in people_mentioned(text)})
    if not names:
        return sections
    rows = tuple((str(person), names[person]) for person in sorted(names))
    people = Block(heads=("Number in the dossier", "Name"), rows=rows)
    return [
        *(each if each.code in _EXACT else _named(each, names) for each in sections),
        Section("people", "People", (people,)),
    ]


def _texts(block: Block) -> Iterator[str]:
    yield from (value for _, value in block.facts)
    yield from (cell for row in block.rows for cell in row)
    yield block.text


def _named(section: Section, names: Mapping[int, str]) -> Section:
    blocks = tuple(
        replace(
            block,
            facts=tuple((title, with_names(value, names)) for title, value in block.facts),
            rows=tuple(tuple(with_names(cell, names) for cell in row) for row in block.rows),
            text=with_names(block.text, names),
        )
        for block in section.blocks
    )
    return replace(section, blocks=blocks)
