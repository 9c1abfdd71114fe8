"""Check that files, settings and commands named by the documentation exist."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path

import pytest
import typer

from registry.catalog.declaration import Evaluation, Playground, Recipe, Task
from registry.catalog.endpoints import Endpoint

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
)
SETTINGS = (ROOT / "platform" / "assay" / "settings.py").read_text()
# Read by processes and commands themselves.
OUTSIDE_SETTINGS = {
    "ASSAY_ESPEAK_NG",
    "ASSAY_SERVER",
    "ASSAY_TOKEN",
    "ASSAY_WORKER_CONCURRENCY",
    "ASSAY_WORKER_KIND",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            file, _, anchor = target.partition("#")
            linked = page.parent / file if file else page
            assert linked.exists(), target
            if anchor:
                titles = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
                assert anchor in {_anchor(title) for title in titles}, target


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_operators_find_every_setting_and_none_that_is_not_read() -> None:
    page = (ROOT / "docs" / "operators.md").read_text()
    read = set(re.findall(r'(?:env\w*|secret)\(\s*"([A-Z0-9_]+)"', SETTINGS))
    assert len(read) > 30
    assert {name for name in read if f"`{name}`" not in page} == set()
    named = set(re.findall(r"\bASSAY_[A-Z0-9_]+\b", page))
    assert named - read == OUTSIDE_SETTINGS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    from assay.cli.main import app

    commands = typer.main.get_command(app)
    for words in re.findall(r"(?:^|`)assay ((?:[a-z-]+ ?)+)", page.read_text(), re.MULTILINE):
        found = commands
        for word in words.split():
            if not hasattr(found, "commands"):
                break
            assert word in found.commands, f"assay {words}"
            found = found.commands[word]


def test_the_tutorial_on_tasks_shows_what_the_example_holds() -> None:
    page = (ROOT / "docs" / "adding-a-task.md").read_text()
    excerpts = re.findall(r"```(?:python|toml)\n# (\S+)\n(.+?)\n```", page, re.DOTALL)
    assert len(excerpts) > 5
    for file, code in excerpts:
        assert code in (ROOT / "examples" / "task-plugin" / file).read_text(), (file, code[:80])


def test_every_field_of_a_declaration_is_explained() -> None:
    page = (ROOT / "docs" / "task-declaration.md").read_text()
    for kind in (Task, Endpoint, Playground, Recipe, Evaluation):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in page, f"{kind.__name__}.{field.name}"


def test_the_table_of_endpoints_is_that_of_the_declarations() -> None:
    written = (ROOT / "docs" / "endpoints.md").read_text()
    assert written == runpy.run_path(str(ROOT / "tools" / "endpoints.py"))["page"](), (
        "Run .venv/bin/python tools/endpoints.py"
    )
