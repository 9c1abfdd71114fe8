"""Capacity of an engine worker process for models, as it reports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from workers.control.messages import Bytes, Text
from workers.deployments.models import Device

Label = Annotated[Text, Field(min_length=1, max_length=40)]


@dataclass(frozen=True, slots=True)
class Capacity:
    """Device kind and count, bytes that models may take on one device, and labels."""

    memory: Bytes
    device: Annotated[str, Field(pattern=f"^({'|'.join(Device.values)})$")] = Device.CPU.value
    devices: Annotated[int, Field(ge=0, le=1024)] = 1
    labels: Annotated[tuple[Label, ...], Field(max_length=16)] = ()
