"""Fields and serializers that several answers share."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class PersonReference(serializers.Serializer[Any]):
    """A person by ID and name."""

    id = serializers.IntegerField()
    name = serializers.CharField()


def slug(source: str = "department.slug", **kwargs: Any) -> serializers.CharField:
    """Return a field with the slug of a row's department."""
    return serializers.CharField(source=source, **kwargs)


class Link(serializers.CharField):
    """A path of this API, built from the row's fields: `Link("versions/{0.id}")`."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        super().__init__(read_only=True, source="*")

    def to_representation(self, value: Any) -> str:
        return f"/api/v1/{self.pattern.format(value)}"
