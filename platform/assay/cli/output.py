"""Output of the commands: tables and sentences on stdout, errors on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

STYLES = {
    "succeeded": "green",
    "approved": "green",
    "serving": "green",
    "trusted": "green",
    "ready": "green",
    "running": "cyan",
    "in_review": "cyan",
    "changes_requested": "yellow",
    "retiring": "yellow",
    "failed": "red",
    "dead": "red",
    "rejected": "red",
    "refused": "red",
    "revoked": "red",
    "expired": "red",
    "missing": "red",
    "recalled": "red",
    "suspended": "red",
    "voided": "red",
    "critical": "red",
    "high": "yellow",
    "investigating": "cyan",
    "resolved": "green",
    "inactive": "yellow",
}


class CliError(Exception):
    """Error in one sentence, with a hint to fix it, and the server's code and status if any."""

    def __init__(self, message: str, hint: str = "", code: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.status = status


def show_error(error: CliError) -> None:
    """Print the sentence, then the hint, on stderr."""
    errors.print(Text.assemble(("Error: ", "bold red"), error.message))
    if error.hint:
        errors.print(Text(error.hint, style="dim"))


def state(value: str) -> Text:
    """Return a state in its color."""
    return Text(value.replace("_", " "), style=STYLES.get(value, ""))


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table, or the sentence `empty` when there are no rows. Text is never markup."""
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row))
    console.print(grid if grid.row_count else Text(empty, style="dim"))


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one pair a line."""
    grid = Table.grid(padding=(0, 2))
    for name, value in pairs:
        text = value if isinstance(value, Text) else Text(plain(value))
        grid.add_row(Text(name, style="dim"), text)
    console.print(grid)


def plain(value: Any) -> str:
    """Return a value for people: nothing as –, lists with commas, times to the minute."""
    if value is None or value == "":
        return "–"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    if len(text) >= 20 and text[4:5] == "-" and text[10:11] == "T":
        return text[:16].replace("T", " ")
    return text
