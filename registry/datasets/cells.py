"""Cells of dataset rows as people see them: texts, files and charts, bounded, possibly masked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from registry.catalog.columns import column_kinds, media_columns
from registry.catalog.passages import passage_columns
from registry.catalog.regions import region_columns
from registry.catalog.series import moment_after
from registry.datasets.media_files import MediaRecord
from registry.datasets.overlays import Overlay, Overlays, counted_labels
from registry.media.checks import Media

# Maximum characters to show of one field.
FIELD_CHARACTERS = 500
CHART_PARTS = 150
# Maximum features to show of one record.
FEATURES = 40
# All non-ASCII characters, because `\w` lacks the vowel signs of many scripts, and emoji.
_SIGN = re.compile(r"\w|[^\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text; a `marked` one may have a label."""

    text: str
    marked: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A field, one message of a conversation (`role`), or one feature of a record (`label`).
    `left_out` characters are not shown.

    `pieces` are the same text in parts if it has marked passages.
    """

    text: str
    role: str = ""
    left_out: int = 0
    pieces: tuple[Piece, ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """An image, recording or video. If `shown`, it may be opened while `address` is valid, and the
    mask in its overlay while `mask_address` is valid; the portal sets both."""

    media: Media
    shown: bool
    address: str = ""
    overlay: Overlay | None = None
    mask_address: str = ""

    @property
    def plays(self) -> bool:
        """Return whether it is a video that needs a player; browsers show animations as images."""
        return self.media.content_type.startswith("video/")


@dataclass(frozen=True, slots=True)
class Chart:
    """A line chart of a series: its `points` in an area of 300 by 60, and the axes' ranges."""

    points: str
    steps: int
    start: str
    end: str
    least: float
    most: float


Cell = list[Text | File | Chart]


def row_cells(
    row_type: type[BaseModel],
    rows: Sequence[Mapping[str, Any]],
    records: Mapping[str, MediaRecord],
    *,
    masked: Sequence[str],
    hidden: Sequence[str],
) -> list[list[Cell]]:
    """Return the cells of each row in the order of its columns. Texts of `masked` columns are
    unreadable; files of `hidden` columns are described."""
    media, kinds = media_columns(row_type), column_kinds(row_type)
    regions, passages = region_columns(row_type), passage_columns(row_type)
    overlays = Overlays(rows, regions, records)

    def cell(row: Mapping[str, Any], column: str) -> Cell:
        value = row.get(column)
        if column in media and isinstance(value, str) and value in records:
            is_shown = column not in hidden
            overlay = overlays.over(row, column, names_shown=not masked) if is_shown else None
            return [File(records[value].media, shown=is_shown, overlay=overlay)]
        if kinds[column] == "features" and value is not None:
            return _features(value, hide=column in masked)
        if kinds[column] == "series" and value is not None:
            return [_hidden(value) if column in masked else _chart(value)]
        if column in regions and isinstance(value, dict):
            return _texts(counted_labels(value), hide=column in masked)
        if column in passages:
            source = passages[column]
            return _marked(str(row.get(source)), value, hide=bool({column, source} & set(masked)))
        return _texts(value, hide=column in masked)

    return [[cell(row, column) for column in row_type.model_fields] for row in rows]


def _hidden(series: Mapping[str, Any]) -> Text:
    return Text(f"{len(series['values']):,} values")


def _chart(series: Mapping[str, Any]) -> Chart:
    values: list[float] = series["values"]
    least, most = min(values), max(values)
    # Keep the smallest and largest value of each part of a long series, to preserve all peaks.
    size = -(-len(values) // CHART_PARTS)
    extremes = [
        (at + offset, value)
        for at in range(0, len(values), size)
        for offset, value in _ends(values[at : at + size])
    ]
    wide, high = max(len(values) - 1, 1), (most - least) or 1
    points = " ".join(
        f"{300 * at / wide:.1f},{58 - 56 * (value - least) / high:.1f}" for at, value in extremes
    )
    try:
        end = moment_after(series["start"], series["frequency"], len(values) - 1)
    except OverflowError:
        end = ""
    return Chart(points, len(values), series["start"], end, least, most)


def _ends(values: list[float]) -> list[tuple[int, float]]:
    """Return the smallest and largest value with their positions, in order of position."""
    places = {values.index(min(values)), values.index(max(values))}
    return [(place, values[place]) for place in sorted(places)]


def _features(value: Mapping[str, Any], *, hide: bool) -> Cell:
    """Return the first features of a record, each labeled with its name."""
    cell: Cell = [
        replace(_text("–" if feature is None else _plain(feature), hide), label=name)
        for name, feature in list(value.items())[:FEATURES]
    ]
    more = len(value) - len(cell)
    return [*cell, Text(f"{more:,} more")] if more else cell


def _plain(value: float | str) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _texts(value: Any, *, hide: bool) -> Cell:
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        value = ", ".join(value)
    if isinstance(value, list) and all(
        isinstance(each, dict) and "content" in each for each in value
    ):
        return [_text(str(each["content"]), hide, str(each.get("role", ""))) for each in value]
    return [_text("" if value is None else str(value), hide)]


def _marked(text: str, passages: Any, *, hide: bool) -> Cell:
    """Return the beginning of a text with its passages marked."""
    field_text = _text(text, hide)
    pieces: list[Piece] = []
    at = 0
    for each in sorted(passages or [], key=lambda passage: int(passage["start"])):
        # Passages may overlap; text in an earlier mark is not repeated.
        start, end = max(at, each["start"]), min(each["end"], len(field_text.text))
        if start < end:
            pieces += [
                Piece(field_text.text[at:start]),
                Piece(field_text.text[start:end], marked=True, label=str(each.get("label", ""))),
            ]
            at = end
    pieces.append(Piece(field_text.text[at:]))
    return [replace(field_text, pieces=tuple(piece for piece in pieces if piece.text))]


def _text(text: str, hide: bool, role: str = "") -> Text:
    beginning = text[:FIELD_CHARACTERS]
    left_out = len(text) - len(beginning)
    return Text(_SIGN.sub("•", beginning) if hide else beginning, role, left_out)
