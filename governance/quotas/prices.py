"""Cost of usage, in whole micro-units of the currency. Knows no Django."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from governance.quotas.kinds import MICRO
from governance.usage.units import Unit

MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Tariff:
    """Micro-units per million prompt tokens, per million completion tokens, per device-second, and,
    by name, per unit of use other than tokens.
    """

    prompt: int = 0
    completion: int = 0
    device_second: int = 0
    units: Mapping[str, int] = field(default_factory=dict)

    def cost(
        self,
        *,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        device_ms: int = 0,
        unit: str = Unit.TOKENS,
        units: int = 0,
    ) -> int:
        """Micro-units, rounded up once over the whole: what has a price never costs nothing.

        Tokens are charged by their two prices, whatever `units` says; every other unit by its own,
        and then tokens are not charged.
        """
        if unit == Unit.TOKENS:
            use = prompt_tokens * self.prompt + completion_tokens * self.completion
        else:
            use = units * self.units.get(unit, 0) * MICRO
        device = device_ms * self.device_second * (MICRO // MS_PER_S)
        return -(-(use + device) // MICRO)


FREE = Tariff()
