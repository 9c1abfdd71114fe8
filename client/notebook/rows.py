"""Lists of API objects as data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ..types import Unset

if TYPE_CHECKING:
    from pandas import DataFrame

Row = TypeVar("Row")


class Rows(list[Row]):
    """List of API objects, which a notebook shows as a table."""

    def frame(self) -> DataFrame:
        """Return a data frame with one row for each object."""
        pandas = pandas_module()
        frame: DataFrame = pandas.DataFrame([_columns_of(row) for row in self])
        return frame.convert_dtypes()

    def _repr_html_(self) -> str:
        return str(self.frame()._repr_html_())


def pandas_module() -> Any:
    # Imported late: it takes longer than the rest of the client, and only data frames need it.
    import pandas

    return pandas


def _columns_of(row: Any) -> dict[str, Any]:
    """Return an object's fields as columns.

    A version has two, `version` with its name and `version_id`; a person has one with their name;
    metrics have one each, such as `metrics.accuracy`.
    """
    columns: dict[str, Any] = {}
    for field in type(row).__attrs_attrs__:
        name, value = field.name.rstrip("_"), getattr(row, field.name)
        if name == "additional_properties" or isinstance(value, Unset):
            continue
        if hasattr(value, "id") and hasattr(value, "name"):
            columns[name] = value.name
            if not name.endswith("_by"):
                columns[f"{name}_id"] = value.id
            continue
        plain = _plain(value)
        if isinstance(plain, dict):
            columns |= {f"{name}.{key}": each for key, each in plain.items()}
        else:
            columns[name] = plain
    return columns


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.to_dict() if hasattr(value, "to_dict") else value
