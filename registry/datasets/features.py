"""Checks that the records of one file have the same features, each of one kind in every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from registry.catalog.features import Kind, features_column, kind_of
from registry.datasets.tables import refuse

_WORDS = {"number": "a number", "category": "a text"}


class FeatureChecks:
    """Remembers the features of the rows so far; rows without a column of features always pass."""

    def __init__(self, row: type[BaseModel]) -> None:
        self._column = features_column(row)
        self._kinds: dict[str, Kind | None] = {}

    def check(self, place: str, row: Mapping[str, Any]) -> None:
        """Take one validated row.

        Raises:
            InvalidInput: it lacks a feature of the rows before, has another one, or has a text
                where those have a number.
        """
        if not self._column:
            return
        features = row[self._column]
        if not self._kinds:
            self._kinds = dict.fromkeys(features)
        if features.keys() != self._kinds.keys():
            name = min(features.keys() ^ self._kinds.keys())
            raise refuse(
                place,
                f"it has the feature {name!r}, which the first row lacks."
                if name in features
                else f"it lacks the feature {name!r} of the first row; a missing value is null.",
            )
        for name, value in features.items():
            kind = kind_of(value)
            known = self._kinds[name]
            if kind is None or kind == known:
                continue
            if known is not None:
                raise refuse(
                    place,
                    f"{name} is {_WORDS[kind]} here, and {_WORDS[known]} in the rows before; "
                    "leave missing values empty.",
                )
            self._kinds[name] = kind
