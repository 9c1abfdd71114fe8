"""Units in which requests are metered: each task names one. Knows no Django.

Amounts are whole numbers for each request, rounded up. Amounts of different units are never added.
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
        """Name for people: `audio seconds`."""
        return self.value.replace("_", " ")

    @property
    def singular(self) -> str:
        """Name of one for people: `audio second`."""
        return self.plural.removesuffix("s")

    def words(self, units: int) -> str:
        """Return an amount as people read it: `1,200 images`, `1 audio second`."""
        return f"{units:,} {self.singular if units == 1 else self.plural}"


# Prompt and completion tokens have prices of their own; each of these has one.
PRICED_BY_UNIT = tuple(unit for unit in Unit if unit is not Unit.TOKENS)
