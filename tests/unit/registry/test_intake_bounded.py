"""The checks of a delivery, and the reading of an upload, cost the process that asks for them no
memory, and end within limits.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import struct
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from governance.errors import InvalidInput, Unavailable
from registry.intake import bounded
from registry.intake.bounded import check_bounded
from registry.intake.checks import Limits, check_delivery
from registry.intake.gguf import MAX_HEADER_BYTES
from registry.sandbox.isolation import hide_process
from registry.sandbox.readers import MAX_REFUSAL_BYTES, Reach, run_bounded, upload_places
from tests.unit.registry.objects import gguf_string, safetensors
from tests.waiting import PATIENCE_S

LIMITS = Limits(max_bytes=10**10)
_SET_DUMPABLE = 4  # PR_SET_DUMPABLE of <linux/prctl.h>


def hungry_json(folder: Path) -> Path:
    """Millions of small values: about 500 MB once it is parsed."""
    (folder / "config.json").write_bytes(b"[" + b"[0]," * 2_000_000 + b"[0]]")
    (folder / "model.safetensors").write_bytes(safetensors())
    return folder


def peak_kib() -> int:
    """The most memory that this process has had."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line)


def test_the_findings_are_those_of_the_checks(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "weights.pth").write_bytes(b"\x80\x04x")
    assert check_bounded(tmp_path, LIMITS) == check_delivery(tmp_path, LIMITS)


def test_parsing_costs_the_asking_process_no_memory(tmp_path: Path) -> None:
    folder = hungry_json(tmp_path)
    # The settings have hidden this process; only root may still write to the next file.
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, 1, 0, 0, 0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    finally:
        hide_process()
    before = peak_kib()
    findings = check_bounded(folder, LIMITS)
    grown = peak_kib() - before
    assert all(finding.passed for finding in findings)
    assert grown < 32 * 1024


def test_a_delivery_that_takes_too_much_memory_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "MEMORY_BYTES", 128 * 1024**2)
    (finding,) = check_bounded(hungry_json(tmp_path), LIMITS)
    assert (finding.check, finding.passed) == ("limits", False)
    assert "0.125 GiB" in finding.detail


def test_a_delivery_that_takes_too_long_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twenty such files take seconds of the processor.
    text = (hungry_json(tmp_path) / "config.json").read_bytes()
    for number in range(20):
        (tmp_path / f"{number}.json").write_bytes(text)
    for seconds in (1, 2):
        monkeypatch.setattr(bounded, "SECONDS", seconds)
        with contextlib.suppress(Unavailable):  # This machine is busy.
            (finding,) = check_bounded(tmp_path, LIMITS)
            assert not finding.passed
            assert "longer than" in finding.detail or "broke" in finding.detail


def test_a_machine_without_time_for_the_checks_says_nothing_about_the_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    monkeypatch.setattr(bounded, "SECONDS", 0.001)
    with pytest.raises(Unavailable, match="The file may be fine"):
        check_bounded(tmp_path, LIMITS)


def test_a_process_that_the_system_kills_says_nothing_about_the_delivery(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    stopped = threading.Event()

    def kill() -> None:
        while not stopped.is_set():
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if bounded.MODULE in child.cmdline():
                        child.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(Unavailable, match="The file may be fine"):
            check_bounded(tmp_path, LIMITS)
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize(
    "change",
    [
        {"MAX_FINDINGS_BYTES": 10},
        # Writes what it reads, which is no finding.
        {"MODULE": "json.tool"},
        # Writes no JSON.
        {"MODULE": "this"},
        {"MODULE": "no.such.module"},
    ],
)
def test_checks_that_write_anything_but_findings_fail(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in change.items():
        monkeypatch.setattr(bounded, name, value)
    (finding,) = check_bounded(tmp_path, LIMITS)
    assert not finding.passed
    assert "The checks broke" in finding.detail


@pytest.mark.parametrize(
    ("module", "given"),
    [
        ("json.tool", {}),
        ("json.tool", {"flood": "x" * MAX_REFUSAL_BYTES}),
        ("this", {}),
        ("no.such.module", {}),
    ],
)
def test_a_process_that_writes_anything_but_a_refusal_broke(
    module: str, given: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput, match="The file broke the process"):
        run_bounded(
            module,
            given,
            reach=Reach(),
            seconds=int(PATIENCE_S),
            memory_bytes=1024**3,
            places=upload_places(),
            owner="",
        )


def test_a_gguf_header_is_bounded_as_a_whole_and_not_kept(tmp_path: Path) -> None:
    value = struct.pack("<I", 8) + struct.pack("<Q", 4 * 1024**2) + b"x" * (4 * 1024**2)
    keys = MAX_HEADER_BYTES // len(value) + 1
    with (tmp_path / "model.gguf").open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, keys))
        for number in range(keys):
            file.write(gguf_string(f"key{number}") + value)
    findings = {each.detail for each in check_bounded(tmp_path, LIMITS) if not each.passed}
    assert findings == {"model.gguf was rejected: its header has more than 64 MiB."}
