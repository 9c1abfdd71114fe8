"""Units in which requests are metered: each task has one. Does not import Django.

The amount of a request is a whole number, rounded up. Amounts of different units are never added.
"""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    """Unit of a request. Its value is the name in the ledger, in kinds of limits and in headers."""

    TOKENS = "tokens"
    IMAGES = "images"
    MEGAPIXELS = "megapixels"
    AUDIO_SECONDS = "audio_seconds"
    CHARACTERS = "characters"
    POINTS = "points"

    @property
    def plural(self) -> str:
        """Display name, plural: `audio seconds`."""
        return self.value.replace("_", " ")

    @property
    def singular(self) -> str:
        """Display name, singular: `audio second`."""
        return self.plural.removesuffix("s")

    def words(self, units: int) -> str:
        """Return an amount as people read it: `1,200 images`, `3 s of audio`."""
        if self is Unit.AUDIO_SECONDS:
            return f"{units:,} s of audio"
        return f"{units:,} {self.singular if units == 1 else self.plural}"


# Units with one price; prompt and completion tokens have two.
PRICED_BY_UNIT = tuple(unit for unit in Unit if unit is not Unit.TOKENS)
