"""Services that take two people compare them together with who alone set their accounts up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.sweep
ROOT = Path(__file__).parents[2]
# Lists that are written with the makers of everybody in them, and that triggers hold.
LISTS = {"excluded_people"}
MAKERS = {"sign_in_admins_of", "with_sign_in_admins"}


def refusing() -> dict[str, set[str]]:
    """Modules that refuse with `separation_of_duties`, with every name that they use."""
    found = {}
    for folder in ("governance", "registry", "workers", "platform/assay"):
        for path in (ROOT / folder).rglob("*.py"):
            if "migrations" in path.parts or path.name == "evidence_verifier.py":
                continue
            tree = ast.parse(path.read_text())
            texts = {
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            if "separation_of_duties" in texts:
                names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
                names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
                found[str(path.relative_to(ROOT))] = names
    return found


def test_every_separation_of_duties_counts_who_set_an_account_up() -> None:
    modules = refusing()
    assert len(modules) > 8
    assert [path for path, names in modules.items() if not names & (MAKERS | LISTS)] == []


def test_every_list_of_excluded_people_is_written_with_them() -> None:
    for path in (
        "governance/reviews/services.py",
        "registry/incidents/suspending.py",
        "registry/releases/emergency_access/services.py",
        "registry/releases/separation.py",
    ):
        assert MAKERS & set((ROOT / path).read_text().replace("(", " ").split()), path
