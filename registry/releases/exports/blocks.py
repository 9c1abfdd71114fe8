"""Building blocks of a dossier's sections."""

from __future__ import annotations

from dataclasses import dataclass

from registry.releases.exports.words import Fact


@dataclass(frozen=True, slots=True)
class Block:
    """Facts, a table (`heads` and `rows`), or a text, below its `title`."""

    title: str = ""
    facts: tuple[Fact, ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    text: str = ""
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a dossier; `code` names it in URLs."""

    code: str
    title: str
    blocks: tuple[Block, ...]
