"""8. Prove: the log verifies; one flipped bit is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from assay.demo.stage import Stage


def run(stage: Stage) -> None:
    with stage.chapter("8. Prove: the audit log convicts whoever edits it"):
        export = stage.folder / "audit-export.jsonl"
        export.write_text(stage["asha"].text("audit/export"))
        finished = _verify(stage, export)
        stage.expect(finished.returncode == 0, f"the export verifies: {finished.stdout}")
        stage.say(" ".join(finished.stdout.split()))
        copy, sequence = _flip_one_bit(export)
        finished = _verify(stage, copy)
        stage.expect(finished.returncode != 0, "the changed copy does not verify")
        output = " ".join((finished.stdout + finished.stderr).split())
        stage.expect(str(sequence) in output, f"verify names row {sequence}: {output}")
        stage.console.print(f"  [yellow]✗[/] one bit of row {sequence} flipped on a copy")
        stage.console.print(f"    [italic]{output}[/]")


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
    """Flip one bit of the canonical text of the row in the middle; returns the copy and the row."""
    lines = export.read_text().splitlines()
    middle = len(lines) // 2
    row = json.loads(lines[middle])
    canonical: str = row["canonical"]
    at = canonical.index('"action"') + len('"action":"')
    row["canonical"] = canonical[:at] + chr(ord(canonical[at]) ^ 1) + canonical[at + 1 :]
    lines[middle] = json.dumps(row, ensure_ascii=False)
    copy = export.with_name("audit-export-flipped.jsonl")
    copy.write_text("\n".join(lines) + "\n")
    return copy, int(row["sequence"])
