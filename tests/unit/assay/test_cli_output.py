"""Output of the command line: widths, JSON and exit codes, without a server."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console
from typer.core import TyperGroup

from assay.cli import output
from assay.cli.main import ALL, every_command, execute
from assay.cli.output import CliError, facts, json_option, listing

ID = str(UUID(int=2**127))
DIGEST = "0123456789abcdef" * 4
JOB = {
    "id": ID,
    "title": "Fine-tune the classifier of requests that employees send to the service desk",
    "state": "succeeded",
    "progress": "1200/1200",
    "department": "engineering-of-the-northern-region",
    "created": "2026-05-01T14:30:00Z",
}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    for name in ("console", "errors"):
        console = Console(
            highlight=False,
            width=80,
            force_terminal=True,
            color_system=None,
            stderr=name == "errors",
        )
        monkeypatch.setattr(output, name, console)


def jobs(rows: list[dict[str, Any]]) -> output.Answer:
    return listing(rows, {name: name for name in JOB}, empty="No jobs.")


def test_a_terminal_cuts_wide_cells_and_never_an_id(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs([JOB, {**JOB, "title": "Short", "department": "x"}]).show()
    out, err = capsys.readouterr()
    heading, first, second = out.splitlines()
    assert heading.split()[:3] == ["id", "title", "state"]
    assert first.startswith(f"{ID}  Fine-tun")
    assert second.startswith(f"{ID}  Short")
    assert "…" in first
    assert max(map(len, out.splitlines())) <= 80
    assert "No room for department, created" in err


def test_a_terminal_shows_how_long_ago_something_was(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    for delta, words in (
        (-timedelta(days=40), "40 d ago"),
        (-timedelta(hours=5, minutes=1), "5 h ago"),
        (timedelta(days=29, minutes=1), "in 29 d"),
    ):
        rows = [{"id": 1, "created": (now + delta).isoformat()}]
        listing(rows, {"id": "id", "created": "created"}, empty="").show()
        assert words in capsys.readouterr().out


def test_output_to_a_program_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    jobs([JOB]).show()
    out, err = capsys.readouterr()
    (_, line) = out.splitlines()
    assert all(str(JOB[name]) in line for name in ("id", "title", "department"))
    assert "2026-05-01 14:30" in line
    assert err == ""


def test_a_digest_among_the_facts_is_one_word_and_prose_wraps(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    facts([("digest of the list", DIGEST), ("purpose", "Sort requests. " * 10), ("none", None)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == DIGEST
    assert len(lines) == 6
    assert max(map(len, lines)) <= 80
    facts([("digest", DIGEST)])
    assert capsys.readouterr().out == f"digest  {DIGEST}\n"


def test_json_is_the_data_and_nothing_else(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command: Any = json_option(lambda: jobs([JOB]))
    command(as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == [JOB]
    assert err == ""


# Commands without `--json`, and why.
WITHOUT_JSON = {
    "api": "prints the answer of the API itself",
    "demo": "is a program of another package",
    "init": "is a Django command",
    "jobs logs": "prints text; `assay api get jobs/JOB/events` prints its fields",
    "login": "prompts for credentials",
    "manage": "is a Django command",
    "node join": "sets this machine up, and prints the next step",
    "people recover": "is a Django command",
    "policy export": "prints YAML; `assay policy show --json` prints the fields",
    "step-up": "prompts for a code",
    "up": "runs until it is stopped",
}


def test_every_command_that_prints_data_has_json() -> None:
    without = set()
    for name, command in every_command().commands.items():
        parts = command.commands if isinstance(command, TyperGroup) else {"": command}
        for verb, part in parts.items():
            options = {option for param in part.params for option in param.opts}
            without |= set() if "--json" in options else {f"{name} {verb}".strip()}
    assert without == WITHOUT_JSON.keys()


def test_a_command_with_a_fault_prints_its_data_and_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault = CliError("1 of 1 tests fails.")
    command: Any = json_option(lambda: output.Answer([JOB], lambda: None, fault))
    with pytest.raises(CliError) as raised:
        command(as_json=True)
    assert raised.value is fault
    assert json.loads(capsys.readouterr().out) == [JOB]


def test_the_help_describes_each_command_in_one_whole_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["assay", "--help"])
    with pytest.raises(SystemExit):
        execute()
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    for name, command in every_command().commands.items():
        assert command.name == name
        assert [name, ALL[name].help] in lines


def test_the_help_of_a_group_wraps_the_summaries_of_its_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["assay", "keys", "--help"])
    with pytest.raises(SystemExit):
        execute()
    out = " ".join(capsys.readouterr().out.split())
    assert "print only the key on stdout. It is shown only once." in out


@pytest.mark.parametrize(("status", "code"), [(0, 1), (403, 4), (409, 4), (500, 5), (503, 5)])
def test_the_exit_code_tells_a_refusal_from_a_failure(status: int, code: int) -> None:
    assert CliError("x", status=status).exit_code == code


def test_the_error_for_an_unknown_command_suggests_a_similar_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["assay", "modles", "list"])
    with pytest.raises(SystemExit) as ended:
        execute()
    assert ended.value.code == 2
    assert "Did you mean 'models'" in capsys.readouterr().err
