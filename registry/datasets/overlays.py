"""Overlays of boxes and masks that previews draw over the images of dataset rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from registry.catalog.regions import HUES, MASK_LABELS, RegionColumn
from registry.datasets.media_files import MediaRecord
from registry.datasets.regions import levels_of

# Maximum number of boxes to draw on one image and to list next to it.
BOXES = 200
LABELS = 12


@dataclass(frozen=True, slots=True)
class Label:
    """A label of regions, and the number of its color."""

    text: str
    hue: int


@dataclass(frozen=True, slots=True)
class Box:
    """A box in pixels, as attributes of an SVG rectangle; `hue` is the number of its color."""

    x: str
    y: str
    width: str
    height: str
    label: str
    hue: int


@dataclass(frozen=True, slots=True)
class Overlay:
    """Drawing over an image of `width` × `height` pixels.

    Contains boxes and the SHA-256 of a mask's file; `labels` are listed next to the image. The
    overlay of a mask itself has only labels, and `is_mask` is true.
    """

    width: int
    height: int
    boxes: tuple[Box, ...] = ()
    mask: str = ""
    labels: tuple[Label, ...] = ()
    is_mask: bool = False


class Overlays:
    """Overlays for the rows of one version, with the same color for a label in all of them."""

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        columns: Mapping[str, RegionColumn],
        records: Mapping[str, MediaRecord],
    ) -> None:
        self._columns, self._records = columns, records
        labels = {
            label
            for row in rows
            for name, column in columns.items()
            if column.kind == "boxes" and row.get(name)
            for label in row[name]["categories"]
        }
        self._hues = {label: number % len(HUES) for number, label in enumerate(sorted(labels))}

    def over(self, row: Mapping[str, Any], image: str, *, names_shown: bool) -> Overlay | None:
        """Return the overlay of the file in the column `image`; None without boxes and masks.

        Without `names_shown` labels are left out.
        """
        width, height = self._records[row[image]].upright_size
        boxes: tuple[Box, ...] = ()
        labels: list[Label] = []
        mask = ""
        for name, column in self._columns.items():
            if row.get(name) is None or image not in (name, column.image):
                continue
            if column.kind == "boxes":
                boxes = self._boxes(row[name])
                labels += [Label(each, self._hues[each]) for each in _distinct(row[name])]
            elif row[name] in self._records:
                mask = row[name]
                labels += self._mask_labels(row[MASK_LABELS], self._records[mask])
        if not boxes and not mask:
            return None
        is_mask = image in self._columns
        return Overlay(
            width,
            height,
            boxes if names_shown else tuple(_unnamed(each) for each in boxes),
            "" if is_mask else mask,
            tuple(labels[:LABELS]) if names_shown else (),
            is_mask,
        )

    def _boxes(self, objects: Mapping[str, Any]) -> tuple[Box, ...]:
        pairs = zip(objects["bbox"][:BOXES], objects["categories"], strict=False)
        return tuple(
            Box(f"{x:g}", f"{y:g}", f"{width:g}", f"{height:g}", label, self._hues[label])
            for (x, y, width, height), label in pairs
        )

    def _mask_labels(self, names: list[str], mask: MediaRecord) -> list[Label]:
        # The value 0 is transparent in the picture.
        return [
            Label(names[value], (value - 1) % len(HUES))
            for value in levels_of(mask)
            if 0 < value < len(names)
        ]


def _unnamed(box: Box) -> Box:
    return Box(box.x, box.y, box.width, box.height, "", 0)


def _distinct(objects: Mapping[str, Any]) -> list[str]:
    return sorted(set(objects["categories"]))


def counted_labels(objects: Mapping[str, Any]) -> str:
    """Return the labels of a row's boxes with their counts."""
    counts = Counter(objects["categories"])
    return ", ".join(f"{label} × {count}" for label, count in counts.most_common()) or "no box"
