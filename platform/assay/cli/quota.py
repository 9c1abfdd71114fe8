"""`assay quota`: list and set quotas, show usage, and reconcile counters."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.text import Text

from assay.cli.client import Client
from assay.cli.options import Limit
from assay.cli.output import (
    Answer,
    CliError,
    Column,
    console,
    json_option,
    listing,
    sentence,
    table,
)
from governance.quotas.kinds import KINDS, MICRO, UNNAMED, amount_words, money_words
from governance.usage.units import PRICED_BY_UNIT, Unit

app = typer.Typer(no_args_is_help=True)

Deployment = Annotated[str, typer.Option(help="Name of a deployment.")]
# More digits than any quota has; the server checks the bounds.
_WHOLE = re.compile(r"[0-9]{1,20}")
_MONEY = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")


COLUMNS: dict[str, Column] = {
    "id": "id",
    "on": "subject",
    "limit": lambda quota: _limit(quota),
    "used": lambda quota: _in_units(quota["kind"], quota["used"]),
    "reserved": lambda quota: _in_units(quota["kind"], quota["reserved"]),
    "%": "percent",
    "refused today": "stops_today",
    "resets": "resets_at",
}


@app.command("list")
@json_option
def list_limits(limit: Limit = 100) -> Answer:
    """List quotas and their use."""
    quotas = Client.signed_in().all("quotas", limit=limit)
    return listing(quotas, COLUMNS, empty="No quotas that you may see.")


@app.command("set")
@json_option
def set_limit(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    amount: Annotated[
        str,
        typer.Argument(help="Amount, such as 5000, or 25.50 for money; none removes the quota."),
    ],
    organization: Annotated[
        bool, typer.Option("--organization", help="Quota of the whole organization.")
    ] = False,
    department: Annotated[str, typer.Option(help="Quota of a department.")] = "",
    key: Annotated[int, typer.Option(help="Quota of a key, by its ID.", min=0)] = 0,
    deployment: Deployment = "",
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Count and report, but do not refuse requests.")
    ] = False,
) -> Answer:
    """Set or remove a quota."""
    body: dict[str, Any] = {"kind": kind, "limit": _amount(kind, amount)}
    subjects = {"department": department, "key": key, "deployment": deployment}
    body |= {name: value for name, value in subjects.items() if value}
    body |= {"organization": True} if organization else {}
    body |= {"shadow": True} if shadow else {}
    quota = Client.signed_in().post("quotas", **body)
    if quota is None:
        return sentence(None, "Quota removed.")
    verb = "would be" if quota["shadow"] else "is"
    return sentence(quota, f"{quota['subject']} {verb} limited to {quota['description']}.")


@app.command()
@json_option
def which(
    key: Annotated[int, typer.Argument(help="The key's ID.", min=1)], deployment: Deployment = ""
) -> Answer:
    """Show the quotas of a key, widest first, and which of them refuse its requests now."""
    effective = Client.signed_in().get("quotas/effective", key=key, deployment=deployment)
    limits = listing(effective["limits"], COLUMNS, empty="This key has no quotas.")
    stopped = ", ".join(effective["stopped_by"])

    def print_answer() -> None:
        limits.show()
        console.print(f"Stopped by {stopped}." if stopped else "Not stopped now.", markup=False)

    return Answer(effective, print_answer)


@app.command()
@json_option
def usage(
    days: Annotated[int, typer.Option(help="Number of days, including today.", min=1, max=366)] = 7,
    by: Annotated[str, typer.Option(help="Group by department, deployment or key.")] = "",
) -> Answer:
    """Show usage per day."""
    report = Client.signed_in().get("usage/days", days=days, by=by)
    return listing(
        report["days"],
        {
            "day": "day",
            by or "all": lambda day: _name(day["name"], by),
            "requests": lambda day: f"{day['requests']:,}",
            "failed": lambda day: f"{day['failed']:,}",
            "tokens": lambda day: f"{day['prompt_tokens'] + day['completion_tokens']:,}",
            "other units": lambda day: _other_units(day["units"]),
            "device s": lambda day: f"{day['device_ms'] / 1000:,.1f}",
            "cost": lambda day: money_words(day["cost_micro"], report["currency"]),
        },
        empty="No usage in this time.",
        data=report,
    )


@app.command()
@json_option
def reconcile(
    repair: Annotated[
        bool, typer.Option("--repair", help="Correct the counters that differ.")
    ] = False,
) -> Answer:
    """Compare the counters with the sums of the ledger."""
    mode = "repair" if repair else "compare"
    report = Client.signed_in().post("quotas/reconcile", mode=mode)
    fault = None
    if report["differences"] and not report["repaired"]:
        fault = CliError(
            f"{report['differences']:,} counters differ from the ledger.",
            "`assay quota reconcile --repair` corrects them.",
        )
    return Answer(report, lambda: _show_report(report), fault)


def _show_report(report: dict[str, Any]) -> None:
    if not report["was_ready"]:
        console.print("The counters were missing, as after a flush of the store.")
    if not report["differences"]:
        console.print(f"[green]✓[/] {report['checked']:,} counters agree with the ledger.")
        return
    table(
        ("window", "subject", "counter", "ledger", "counted"),
        (
            tuple(drift[name] for name in ("window", "subject", "field", "expected", "found"))
            for drift in report["drifts"]
        ),
        empty="",
    )
    if report["repaired"]:
        console.print(f"{report['differences']:,} counters are corrected.")


def _limit(quota: dict[str, Any]) -> Text:
    shadow = Text(" shadow", style="cyan") if quota["shadow"] else Text("")
    return Text(quota["description"]) + shadow


def _in_units(kind: str, amount: int | None) -> str:
    if amount is None:
        return "–"
    definition = KINDS.get(kind)
    if definition is None:
        return f"{amount:,}"
    return amount_words(kind, amount * definition.scale, "").strip()


def _other_units(units: dict[str, int]) -> str:
    """Return sums in units other than tokens; units of a newer server appear by name."""
    return ", ".join(
        Unit(name).words(amount) if name in PRICED_BY_UNIT else f"{amount:,} {name}"
        for name, amount in units.items()
        if name != Unit.TOKENS
    )


def _name(name: str | None, by: str) -> str:
    if not by:
        return ""
    return "everything else" if name is None else name or UNNAMED.get(by, "unknown")


def _amount(kind: str, text: str) -> int | None:
    if text == "none":
        return None
    if kind in KINDS and KINDS[kind].unit == "money":
        return _micro(text)
    if _WHOLE.fullmatch(text) is None:
        raise CliError(f"{text[:40]!r} is not a whole number.", "Give a number, or none.")
    return int(text)


def _micro(text: str) -> int:
    if _MONEY.fullmatch(text) is None:
        raise CliError(f"{text[:40]!r} is not an amount of money.", "For example 25.50.")
    return int(Decimal(text) * MICRO)
