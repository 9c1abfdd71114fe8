"""Checks of boxes and masks in dataset rows against their images, and statistics of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from registry.catalog.declaration import RowKind
from registry.catalog.regions import (
    IGNORED,
    MASK_LABELS,
    RegionColumn,
    fault_of_boxes,
    region_columns,
)
from registry.datasets.media_files import MediaRecord
from registry.datasets.tables import refuse

MAX_LABELS = 1000


def check_regions(
    place: str,
    row: Mapping[str, Any],
    columns: Mapping[str, RegionColumn],
    records: Mapping[str, MediaRecord],
) -> None:
    """Raise InvalidInput if a box or mask does not fit its image."""
    for name, column in columns.items():
        value, image = row.get(name), records.get(row.get(column.image, ""))
        if value is None or image is None:
            continue
        width, height = image.upright_size
        if column.kind == "boxes":
            if fault := fault_of_boxes(value, width, height):
                raise refuse(place, f"{name}.{fault}.")
        else:
            _check_mask(place, name, records[value], (width, height), row[MASK_LABELS])


def _check_mask(
    place: str, name: str, mask: MediaRecord, size: tuple[int, int], labels: list[str]
) -> None:
    if mask.upright_size != size:
        mask_size = " × ".join(f"{side:,}" for side in mask.upright_size)
        image_size = " × ".join(f"{side:,}" for side in size)
        raise refuse(
            place,
            f"{name}: the mask has {mask_size} pixels, its image {image_size}; make them equal.",
        )
    if not mask.levels:
        raise refuse(
            place,
            f"{name}: a mask is a PNG of one channel of 8 bits (gray or with a palette); "
            f"this is {mask.media.content_type} in color.",
        )
    unnamed = next((each for each in levels_of(mask) if len(labels) <= each < IGNORED), None)
    if unnamed is not None:
        raise refuse(
            place,
            f"{name}: a pixel has the value {unnamed}, and there are {len(labels)} categories, "
            f"numbered from 0. Use {IGNORED} for pixels that belong to none.",
        )


def levels_of(mask: MediaRecord) -> Iterator[int]:
    """Yield the pixel values of a mask, the smallest first."""
    bits = int(mask.levels or "0", 16)
    return (value for value in range(256) if bits >> value & 1)


class Regions:
    """Statistics of boxes and masks, gathered one row at a time."""

    def __init__(self, row_kind: RowKind, records: Mapping[str, MediaRecord]) -> None:
        self.columns = region_columns(row_kind.row)
        self._records = records
        self._labels = {name: Counter[str]() for name in self.columns}
        self._per_row: dict[str, list[int]] = {name: [] for name in self.columns}

    def look(self, place: str, row: Mapping[str, Any]) -> None:
        """Count one checked row. Raises InvalidInput for too many labels."""
        for name, column in self.columns.items():
            if row.get(name) is None:
                continue
            if column.kind == "boxes":
                categories = row[name]["categories"]
            else:
                labels = row[MASK_LABELS]
                levels = levels_of(self._records[row[name]])
                categories = [labels[each] for each in levels if each < len(labels)]
            self._labels[name].update(categories)
            self._per_row[name].append(len(categories))
            if len(self._labels[name]) > MAX_LABELS:
                raise refuse(place, f"{name}: there are more than {MAX_LABELS} different labels.")

    def to_json(self) -> dict[str, Any]:
        """Return counts by label: of boxes, or of rows whose mask contains the category."""
        statistics: dict[str, Any] = {}
        for name, column in self.columns.items():
            counts = self._per_row[name] or [0]
            boxes = column.kind == "boxes"
            statistics[f"{name}_by_label" if boxes else f"rows_with_{name}_of"] = dict(
                self._labels[name].most_common()
            )
            statistics[f"{name}_per_row" if boxes else f"categories_per_{name}"] = {
                "min": min(counts),
                "mean": round(sum(counts) / len(counts), 1),
                "max": max(counts),
            }
        return statistics
