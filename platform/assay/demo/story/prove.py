"""9. Prove: the log verifies; one flipped bit is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from assay.demo.stage import Stage


def run(stage: Stage) -> None:
    with stage.chapter("9. Prove: the audit log convicts whoever edits it"):
        export = stage.folder / "audit-export.jsonl"
        export.write_text(stage["asha"].text("audit/export"))
        finished = _verify(stage, export)
        stage.expect(finished.returncode == 0, f"the export verifies: {finished.stdout}")
        stage.say(" ".join(finished.stdout.replace("✓", "").split()))
        copy, sequence = _flip_one_bit(export)
        finished = _verify(stage, copy)
        stage.expect(finished.returncode != 0, "the changed copy does not verify")
        output = " ".join((finished.stdout + finished.stderr).split())
        stage.expect(str(sequence) in output, f"verify names row {sequence}: {output}")
        stage.console.print(f"  [yellow]✗[/] one bit of row {sequence} flipped on a copy")
        stage.console.print(f"    [italic]{output}[/]", soft_wrap=True)


def _verify(stage: Stage, export: Path) -> subprocess.CompletedProcess[str]:
    """`assay audit verify FILE`, as an auditor would run it on another machine."""
    return subprocess.run(
        [sys.executable, "-m", "assay.cli", "audit", "verify", str(export)],
        capture_output=True,
        text=True,
        check=False,
        env={**stage.stack.environment, "NO_COLOR": "1", "COLUMNS": "200"},
    )


def _flip_one_bit(export: Path) -> tuple[Path, int]:
    """Flip the lowest bit of one letter in the row in the middle; returns the copy and the row."""
    lines = export.read_text().splitlines(keepends=True)
    middle = len(lines) // 2
    sequence = int(json.loads(lines[middle])["sequence"])
    line = lines[middle]
    at = line.index("action") + len('action\\":\\"')
    lines[middle] = line[:at] + chr(ord(line[at]) ^ 1) + line[at + 1 :]
    copy = export.with_name("audit-export-flipped.jsonl")
    copy.write_text("".join(lines))
    return copy, sequence
