"""Strict input: a field takes its own JSON type, within bounds, and nothing that looks like it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from governance.bounds import NOT_IN_TEXT, NOT_ON_A_LINE

MAX_IDENTIFIER = 2**63 - 1
MAX_OBJECT_CHARACTERS = 32_768


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses members that it does not declare, and names them."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = [str(name) for name in data if name not in self.fields]
            if unknown:
                known = ", ".join(self.fields) or "none"
                raise ValidationError(
                    {name: [f"Unknown field. Known fields: {known}."] for name in unknown[:20]}
                )
        return super().to_internal_value(data)


class Line(serializers.CharField):
    """One line of text: no control characters."""

    default_error_messages = {  # noqa: RUF012 (DRF's own class attribute)
        "not_text": "Not a string.",
        "control": "Control characters are not allowed here.",
    }
    refused = NOT_ON_A_LINE

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("not_text")
        value = super().to_internal_value(data)
        if self.refused.search(value):
            self.fail("control")
        return value


class Paragraphs(Line):
    """Text of several lines."""

    refused = NOT_IN_TEXT


class Whole(serializers.IntegerField):
    """A whole number, written as a number."""

    def __init__(self, *, min_value: int = 0, max_value: int = MAX_IDENTIFIER, **kw: Any) -> None:
        super().__init__(min_value=min_value, max_value=max_value, **kw)

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            raise ValidationError("Not a whole number.")
        return data


class Identifier(Whole):
    """The id of a row."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, **kwargs)


class Number(serializers.FloatField):
    """A finite number, written as a number."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            raise ValidationError("Not a number.")
        value = float(data)
        if not math.isfinite(value):
            raise ValidationError("Not a finite number.")
        return value


class Truth(serializers.BooleanField):
    """`true` or `false`."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise ValidationError("Neither true nor false.")
        return data


class Choice(serializers.ChoiceField):
    """One of a few words."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            raise ValidationError("Not a string.")
        return super().to_internal_value(data)


class Several(serializers.ListField):
    """A list of at most `max_length` members, of which none is looked at when there are more."""

    def to_internal_value(self, data: Any) -> list[Any]:
        most = self.max_length
        if most is not None and isinstance(data, list) and len(data) > most:
            self.fail("max_length", max_length=most)
        return list(super().to_internal_value(data))


class Object(serializers.DictField):
    """A JSON object whose members something else validates; bounded in size."""

    def __init__(self, *, max_members: int = 64, **kwargs: Any) -> None:
        self.max_members = max_members
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise ValidationError("Not an object.")
        if len(data) > self.max_members or len(str(data)) > MAX_OBJECT_CHARACTERS:
            raise ValidationError(f"More than {self.max_members} members, or too long.")
        return dict(super().to_internal_value(dict(data)))
