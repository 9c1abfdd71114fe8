"""Column types for regions of an image: boxes with labels, and masks of label numbers.

A row has boxes in the format of Hugging Face's folders, `{"bbox": [[x, y, width, height]],
"categories": ["dog"]}`, in pixels from the top left corner of the upright image. A mask is a PNG
with one channel and the size of its image; a pixel of value 2 belongs to the third of the row's
`categories`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

MAX_BOXES = 1_000
# Pixels of this value have no category; training and evaluation ignore them.
IGNORED = 255
MAX_CATEGORIES = IGNORED
# Annotation tools round: a box may extend this many pixels beyond its image.
SLACK = 1.0
# Colors of regions by number; `.hue-0` to `.hue-7` in assay.css are the same.
HUES = ("e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7", "8a63d2")
_BOXES_OF = "x-assay-boxes-of"
_MASK_OF = "x-assay-mask-of"
_SHA256 = r"^[0-9a-f]{64}$"


def _checked_box(box: list[float]) -> list[float]:
    if box[2] <= 0 or box[3] <= 0:
        raise ValueError(
            "a box is [x, y, width, height]; width and height must be greater than 0, "
            f"and they are {box[2]:g} and {box[3]:g}"
        )
    return box


def _as_label(label: Any) -> Any:
    """Return an integer as text, because many data sets number their categories."""
    return str(label) if type(label) is int else label


def _distinct(categories: list[str]) -> list[str]:
    if repeated := next((each for each in categories if categories.count(each) > 1), None):
        raise ValueError(f"the category {repeated!r} occurs twice")
    return categories


Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Box = Annotated[list[Coordinate], Field(min_length=4, max_length=4), AfterValidator(_checked_box)]
Label = Annotated[str, Field(min_length=1, max_length=100), BeforeValidator(_as_label)]
Labels = Annotated[list[Label], Field(max_length=MAX_BOXES)]


class Objects(BaseModel):
    """Boxes of one image, and a category for each; both are empty for an image without objects.

    `id` and `area`, which many data sets include, are ignored.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    bbox: Annotated[list[Box], Field(max_length=MAX_BOXES)]
    categories: Annotated[Labels, Field(validation_alias=AliasChoices("categories", "category"))]

    @model_validator(mode="before")
    @classmethod
    def _without_more(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if name not in ("id", "area")}

    @model_validator(mode="after")
    def _one_category_each(self) -> Self:
        if len(self.bbox) != len(self.categories):
            raise ValueError(
                f"there are {len(self.bbox)} boxes and {len(self.categories)} categories; "
                "give one category for each box"
            )
        return self


# Boxes on the column `image` of the same row.
Boxes = Annotated[Objects, Field(json_schema_extra={_BOXES_OF: "image"})]
# The mask of the column `image`; the column `categories` names the values of its pixels.
MaskFile = Annotated[
    str, Field(pattern=_SHA256, json_schema_extra={"x-assay-media": "image", _MASK_OF: "image"})
]
MASK_LABELS = "categories"
Categories = Annotated[
    list[Label], Field(min_length=1, max_length=MAX_CATEGORIES), AfterValidator(_distinct)
]


@dataclass(frozen=True, slots=True)
class RegionColumn:
    """A column that marks regions of the image in the column `image` of the same row."""

    kind: Literal["boxes", "mask"]
    image: str


def region_columns(row: type[BaseModel]) -> dict[str, RegionColumn]:
    """Return the columns of a row schema that mark image regions."""
    columns: dict[str, RegionColumn] = {}
    for name, field in row.model_fields.items():
        for meta in (
            field.json_schema_extra,
            *(getattr(each, "json_schema_extra", None) for each in field.metadata),
        ):
            if isinstance(meta, dict) and _BOXES_OF in meta:
                columns[name] = RegionColumn("boxes", str(meta[_BOXES_OF]))
            elif isinstance(meta, dict) and _MASK_OF in meta:
                columns[name] = RegionColumn("mask", str(meta[_MASK_OF]))
    return columns


def fault_of_boxes(objects: Mapping[str, Any], width: int, height: int) -> str:
    """Describe the first box that reaches outside of an image of this size; empty if all fit."""
    for number, (x, y, wide, high) in enumerate(objects["bbox"]):
        if min(x, y) < -SLACK or x + wide > width + SLACK or y + high > height + SLACK:
            return (
                f"bbox.{number}: the box [{x:g}, {y:g}, {wide:g}, {high:g}] (x, y, width, height) "
                f"reaches outside of its image of {width:,} × {height:,} pixels"
            )
    return ""
