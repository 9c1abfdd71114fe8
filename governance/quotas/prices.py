"""What a use costs, in whole micro-units of the currency. Knows no Django."""

from __future__ import annotations

from dataclasses import dataclass

from governance.quotas.kinds import MICRO

MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Tariff:
    """Micro-units per million prompt tokens, per million completion tokens, per device-second."""

    prompt: int = 0
    completion: int = 0
    device_second: int = 0

    def cost(
        self, *, prompt_tokens: int = 0, completion_tokens: int = 0, device_ms: int = 0
    ) -> int:
        """Micro-units, rounded up once over the whole: what has a price never costs nothing."""
        tokens = prompt_tokens * self.prompt + completion_tokens * self.completion
        device = device_ms * self.device_second * (MICRO // MS_PER_S)
        return -(-(tokens + device) // MICRO)


FREE = Tariff()
