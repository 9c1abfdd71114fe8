"""Cost of usage, in whole micro-units of the currency. Does not import Django."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from governance.quotas.kinds import MICRO
from governance.usage.units import Unit

MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices in micro-units: per million prompt tokens, per million completion tokens, per second
    of device time, and, by name, per unit of use other than tokens.
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
        """Return the cost in micro-units; the total is rounded up, so that it is never free.

        For tokens, the two token prices apply, and `units` is ignored. For other units, their own
        price applies, and tokens are ignored.
        """
        if unit == Unit.TOKENS:
            use = prompt_tokens * self.prompt + completion_tokens * self.completion
        else:
            use = units * self.units.get(unit, 0) * MICRO
        device = device_ms * self.device_second * (MICRO // MS_PER_S)
        return -(-(use + device) // MICRO)


FREE = Tariff()
