"""Check that files, settings and commands named by the documentation exist."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path

import pytest

from registry.catalog.declaration import Evaluation, Playground, Recipe, Task
from registry.catalog.endpoints import Endpoint

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
)
# Reference pages that tools write from code.
GENERATED = ("endpoints", "settings", "commands", "plug_ins", "training_methods", "metrics")


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


def test_every_page_has_a_place_in_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").as_posix()
        assert path.startswith("adr/") or f" {path}\n" in navigation, path


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "adr"
    listed = (folder / "README.md").read_text()
    assert [page.name for page in folder.glob("0*.md") if f"({page.name})" not in listed] == []


def test_pages_stay_short_enough_to_read() -> None:
    generated = {"cli.md", "settings.md", "endpoints.md", "plug-in-interface.md"}
    for page in (ROOT / "docs").rglob("*.md"):
        if page.name not in generated:
            assert len(page.read_text().splitlines()) <= 250, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    from assay.cli.main import every_command

    commands = every_command()
    for words in re.findall(r"(?:^|`)assay ((?:[a-z-]+ ?)+)", page.read_text(), re.MULTILINE):
        found = commands
        for word in words.split():
            if not hasattr(found, "commands"):
                break
            assert word in found.commands, f"assay {words}"
            found = found.commands[word]


def test_the_tutorial_on_tasks_shows_what_the_example_holds() -> None:
    folder = ROOT / "docs" / "tutorials"
    page = "".join((folder / name).read_text() for name in ("add-a-task.md", "train-your-task.md"))
    excerpts = re.findall(r"```(?:python|toml)\n# (\S+)\n(.+?)\n```", page, re.DOTALL)
    assert len(excerpts) > 5
    for file, code in excerpts:
        assert code in (ROOT / "examples" / "task-plugin" / file).read_text(), (file, code[:80])


def test_every_field_of_a_declaration_is_explained() -> None:
    page = (ROOT / "docs" / "reference" / "task-declaration.md").read_text()
    for kind in (Task, Endpoint, Playground, Recipe, Evaluation):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in page, f"{kind.__name__}.{field.name}"


@pytest.mark.parametrize("tool", GENERATED)
def test_a_generated_reference_is_up_to_date(tool: str) -> None:
    made = runpy.run_path(str(ROOT / "tools" / f"{tool}.py"))
    assert made["PAGE"].read_text() == made["page"](), "Run .venv/bin/python tools/references.py"
