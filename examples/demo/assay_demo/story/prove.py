"""12. Audit: verify the log, detect a flipped bit, and check a release's evidence pack."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from rich.markup import escape

from assay_demo.client import RequestRejected
from assay_demo.stage import Stage
from assay_demo.story.adapt import DOCSTRINGS


def run(stage: Stage) -> None:
    with stage.chapter("12. Audit: verify the log and export evidence"):
        export = stage.folder / "audit-export.jsonl"
        export.write_text(stage["asha"].text("audit/export"))
        finished = _verify(stage, export)
        stage.expect(finished.returncode == 0, f"the export verifies: {finished.stdout}")
        stage.say(
            f"The exported log verifies. {' '.join(finished.stdout.replace('✓', '').split())}"
        )
        copy, sequence = _flip_one_bit(export)
        finished = _verify(stage, copy)
        stage.expect(finished.returncode != 0, "the changed copy does not verify")
        output = " ".join((finished.stdout + finished.stderr).split())
        stage.expect(str(sequence) in output, f"the message names row {sequence}: {output}")
        stage.console.print(
            f"  [yellow]✗[/] One bit of row {sequence} is flipped in a copy; verification fails",
            soft_wrap=True,
        )
        stage.console.print(f"    [italic]{output}[/]", soft_wrap=True)
        _take_evidence(stage, _public_keys(export))


def _take_evidence(stage: Stage, key: str) -> None:
    """Check a release's evidence pack with the script in it, which needs only Python."""
    release = stage.facts[f"release:{DOCSTRINGS}"]
    pack = stage.folder / f"release-{release['id']}-evidence.zip"
    pack.write_bytes(_evidence_pack(stage, f"releases/{release['id']}/evidence"))
    script = stage.folder / "verify.py"
    with zipfile.ZipFile(pack) as archive:
        script.write_bytes(archive.read("verify.py"))
    checked = subprocess.run(
        [sys.executable, "-I", "-S", str(script), str(pack), "--key", key],
        capture_output=True,
        text=True,
        check=False,
    )
    stage.expect(checked.returncode == 0, f"the evidence pack verifies: {checked.stdout}")
    for line in checked.stdout.splitlines():
        stage.console.print(f"    [dim]{escape(line)}[/]", soft_wrap=True)
    stage.say(f"The evidence pack of release {release['id']} verifies offline: {pack.name}.")


def _public_keys(export: Path) -> str:
    """Return the log's public keys from the export; an auditor gets them from another source."""
    with export.open() as lines:
        return str(json.loads(next(lines))["public_keys"])


def _evidence_pack(stage: Stage, path: str) -> bytes:
    """Return the pack when its events are sealed, after about a second."""
    for _ in range(20):
        try:
            return stage["asha"].content(path)
        except RequestRejected as refused:
            if refused.status != 409:
                raise
            time.sleep(0.5)
    return stage["asha"].content(path)


def _verify(stage: Stage, export: Path) -> subprocess.CompletedProcess[str]:
    """Run `assay audit verify FILE` like an auditor on another machine."""
    return subprocess.run(
        [sys.executable, "-m", "assay.cli", "audit", "verify", str(export)],
        capture_output=True,
        text=True,
        check=False,
        env={**stage.stack.environment, "NO_COLOR": "1", "COLUMNS": "200"},
    )


def _flip_one_bit(export: Path) -> tuple[Path, int]:
    """Flip the lowest bit of one letter in the middle row; return the copy and the row."""
    lines = export.read_text().splitlines(keepends=True)
    middle = len(lines) // 2
    sequence = int(json.loads(lines[middle])["sequence"])
    line = lines[middle]
    at = line.index("action") + len('action\\":\\"')
    lines[middle] = line[:at] + chr(ord(line[at]) ^ 1) + line[at + 1 :]
    copy = export.with_name("audit-export-flipped.jsonl")
    copy.write_text("".join(lines))
    return copy, sequence
