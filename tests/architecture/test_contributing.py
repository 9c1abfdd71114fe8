"""Check the files for contributors: forms parse, and checks run what `./test` runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("governance", "registry", "workers", "tasks", "platform/assay")


def test_every_issue_form_can_be_rendered() -> None:
    forms = list((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) > 1
    for path in forms:
        form = yaml.safe_load(path.read_text())
        if path.name == "config.yml":
            continue
        assert {"name", "description", "body"} <= form.keys(), path.name
        fields = [part for part in form["body"] if part["type"] != "markdown"]
        assert len({field["id"] for field in fields}) == len(fields)
        assert all(field["attributes"]["label"] for field in fields)


def test_the_workflow_runs_what_continuous_integration_runs_elsewhere() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["run"]["steps"][-1] == {"run": ".ci/run"}
    assert workflow["jobs"]["demo"]["steps"][-1] == {"run": "./demo --check --reset"}
    assert workflow["permissions"] == {"contents": "read"}
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_commits_are_checked_by_programs_that_the_full_test_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    full = (ROOT / "test").read_text()
    for hook in hooks:
        program = hook["entry"].split()[0]
        assert program in full or program == ".venv/bin/python", hook["id"]
        for file in re.findall(r"tests/\S+\.py", hook["entry"]):
            assert (ROOT / file).exists()


def test_the_dev_container_installs_with_the_function_of_the_commands() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert "ensure_environment" in container["postCreateCommand"]
    assert "ensure_environment() {" in (ROOT / "tools" / "environment.sh").read_text()


def test_every_package_says_that_it_is_typed() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").exists(), package


def test_the_changelog_collects_changes_that_are_not_released() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
