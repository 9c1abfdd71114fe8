"""Facts that a node reports about its machine, within bounds."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import ValidationError

from assay.api.fields import Line, Number, Object, Several, StrictSerializer, Whole

DEVICES_MAX = 64
_BYTES_MAX = 2**53


class DeviceBody(StrictSerializer):
    """One accelerator. `used` is its utilization from 0 to 1, null if unknown."""

    name = Line(max_length=80)
    memory_bytes = Whole(max_value=_BYTES_MAX)
    memory_used_bytes = Whole(max_value=_BYTES_MAX)
    used = Number(min_value=0, max_value=1, allow_null=True)


class Versions(Object):
    """Names of software, each with its version."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        value = super().to_internal_value(data)
        if not all(len(str(name)) <= 40 for name in value):
            raise ValidationError("A name is longer than 40 characters.")
        return value


class FactsBody(StrictSerializer):
    """The machine: processors, memory, disk and devices. `cpu_used` is from 0 to 1."""

    cpus = Whole(min_value=1, max_value=65_536)
    cpu_used = Number(min_value=0, max_value=1)
    load = Number(min_value=0, max_value=1e6)
    memory_bytes = Whole(max_value=_BYTES_MAX)
    memory_used_bytes = Whole(max_value=_BYTES_MAX)
    disk_free_bytes = Whole(max_value=_BYTES_MAX, help_text="Where files are cached.")
    clock_ahead_s = Number(
        min_value=-1e10,
        max_value=1e10,
        required=False,
        help_text="By how much its clock is ahead of the server's; 0 where it is about right.",
    )
    devices = Several(child=DeviceBody(), max_length=DEVICES_MAX)
    versions = Versions(child=Line(max_length=80), max_members=16)
