"""Compose's PostgreSQL is hardened as every other one."""

from __future__ import annotations

from pathlib import Path

from assay.database_roles.hardening import STATEMENTS

ROOT = Path(__file__).resolve().parents[2]


def test_the_script_of_a_new_volume_has_the_statements_of_the_command() -> None:
    script = (ROOT / "docker" / "initdb" / "assay.sh").read_text(encoding="utf-8")
    assert STATEMENTS.strip() in script
