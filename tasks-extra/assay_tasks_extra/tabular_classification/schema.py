"""Types of tabular classification: rows of data and inputs. A result is a list of labels."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from assay.plugins import declare

MAX_RECORDS = 2_000
# Maximum values in all records of a request.
MAX_VALUES = 100_000
MAX_LABELS = 100


class LabeledRecord(BaseModel):
    """One record and its label."""

    model_config = ConfigDict(extra="forbid", strict=True)

    features: declare.Features
    label: str = Field(min_length=1, max_length=100)


def _check_lengths(table: dict[str, list[object]]) -> dict[str, list[object]]:
    lengths = {len(values) for values in table.values()}
    if len(lengths) > 1:
        raise ValueError(
            f"its columns have {min(lengths):,} to {max(lengths):,} values; each needs one per row"
        )
    if len(table) * max(lengths) > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES:,} values; send fewer rows at a time")
    return table


Column = Annotated[list[declare.FeatureValue], Field(min_length=1, max_length=MAX_RECORDS)]
# The values of each feature, in the order of the rows.
Table = Annotated[
    dict[declare.FeatureName, Column],
    Field(min_length=1, max_length=declare.MAX_FEATURES),
    AfterValidator(_check_lengths),
]


class TableInputs(declare.Inputs):
    """Records to classify, by feature."""

    table: Table
