"""`assay quota list`, `set`, `which`, `prices`, `price`, `usage`, `reconcile`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.text import Text

from assay.cli.client import Client
from assay.cli.models import Limit
from assay.cli.output import CliError, console, table
from governance.quotas.kinds import KINDS, MICRO, amount_words, money_words
from governance.usage.units import PRICED_BY_UNIT, Unit

app = typer.Typer(no_args_is_help=True, help="Limits, budgets, prices, and what was used.")

Deployment = Annotated[str, typer.Option(help="The name of a deployment.")]
# More digits than any limit has; the server knows the bounds.
_WHOLE = re.compile(r"[0-9]{1,20}")
_MONEY = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")


@app.command("list")
def list_limits(limit: Limit = 100) -> None:
    """Limits that you may see, and how far they are used."""
    table(
        ("id", "on", "limit", "used", "reserved", "%", "refused today", "resets"),
        (_row(quota) for quota in Client.signed_in().all("quotas", limit=limit)),
        empty="There are no limits that you may see.",
    )


@app.command("set")
def set_limit(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    amount: Annotated[str, typer.Argument(help="How much, money as 25.50; none takes it away.")],
    organization: Annotated[bool, typer.Option("--organization", help="On everybody.")] = False,
    department: Annotated[str, typer.Option(help="On a department.")] = "",
    key: Annotated[int, typer.Option(help="On a key, by its id.", min=0)] = 0,
    deployment: Deployment = "",
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Count and report, stop nothing.")
    ] = False,
) -> None:
    """Set a limit on one subject, or take it away."""
    body: dict[str, Any] = {"kind": kind, "limit": _amount(kind, amount)}
    subjects = {"department": department, "key": key, "deployment": deployment}
    body |= {name: value for name, value in subjects.items() if value}
    body |= {"organization": True} if organization else {}
    body |= {"shadow": True} if shadow else {}
    made = Client.signed_in().post("quotas", **body)
    if made is None:
        console.print("The limit is gone.")
        return
    what = "would be" if made["shadow"] else "is"
    console.print(f"{made['subject']} {what} limited to {made['description']}.", markup=False)


@app.command()
def which(
    key: Annotated[int, typer.Argument(help="The key's id.", min=1)], deployment: Deployment = ""
) -> None:
    """Every limit that binds a key, the widest first, and which of them stops it now."""
    asked = {"key": str(key), **({"deployment": deployment} if deployment else {})}
    found = Client.signed_in().get("quotas/effective", **asked)
    table(
        ("id", "on", "limit", "used", "reserved", "%", "refused today", "resets"),
        (_row(quota) for quota in found["limits"]),
        empty="Nothing limits this key.",
    )
    stopped = ", ".join(found["stopped_by"])
    console.print(f"Stopped by {stopped}." if stopped else "Nothing stops it now.", markup=False)


@app.command()
def prices() -> None:
    """Show the price of each deployment."""
    table(
        (
            "deployment",
            "a million prompt tokens",
            "a million completion tokens",
            "a device-second",
            "other units",
        ),
        (
            (
                price["deployment"] or "everything else, and jobs",
                *(
                    money_words(price[part], price["currency"])
                    for part in ("prompt", "completion", "device_second")
                ),
                _unit_prices(price),
            )
            for price in Client.signed_in().get("prices")
        ),
        empty="Nothing has a price.",
    )


@app.command()
def price(
    deployment: Annotated[
        str, typer.Argument(help="The name of a deployment; - for everything else, and jobs.")
    ],
    prompt: Annotated[str, typer.Option(help="Per million prompt tokens.")] = "0",
    completion: Annotated[str, typer.Option(help="Per million completion tokens.")] = "0",
    device_second: Annotated[str, typer.Option(help="Per second of device time.")] = "0",
    unit: Annotated[
        list[str] | None,
        typer.Option(
            help="UNIT=PRICE per unit other than tokens, such as images=0.04; may be repeated. "
            f"One of {', '.join(PRICED_BY_UNIT)}."
        ),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the price.")] = False,
) -> None:
    """Set what a deployment charges from now on."""
    body: dict[str, Any] = {"deployment": None if deployment == "-" else deployment}
    if remove:
        body["remove"] = True
    else:
        parts = {"prompt": prompt, "completion": completion, "device_second": device_second}
        body |= {name: _micro(text) for name, text in parts.items()}
        body["units"] = dict(_unit_price(text) for text in unit or ())
    Client.signed_in().post("prices", **body)
    console.print("The price is gone." if remove else "The price is set.")


@app.command()
def usage(
    days: Annotated[int, typer.Option(help="How many, today included.", min=1, max=366)] = 7,
    by: Annotated[str, typer.Option(help="department, deployment or key.")] = "",
) -> None:
    """Show usage per day."""
    asked = {"days": str(days), **({"by": by} if by else {})}
    found = Client.signed_in().get("usage/days", **asked)
    table(
        ("day", by or "all", "requests", "failed", "tokens", "other units", "device s", "cost"),
        (
            (
                day["day"],
                _name(day["name"], by),
                f"{day['requests']:,}",
                f"{day['failed']:,}",
                f"{day['prompt_tokens'] + day['completion_tokens']:,}",
                _other_units(day["units"]),
                f"{day['device_ms'] / 1000:,.1f}",
                money_words(day["cost_micro"], found["currency"]),
            )
            for day in found["days"]
        ),
        empty="Nothing was used in this time.",
    )


@app.command()
def reconcile(
    repair: Annotated[bool, typer.Option("--repair", help="Put right what differs.")] = False,
) -> None:
    """Compare the counters with the sum of the ledger's records."""
    mode = "repair" if repair else "compare"
    found = Client.signed_in().post("quotas/reconcile", mode=mode)
    if not found["was_ready"]:
        console.print("The counters were gone, as after a flush of the store.")
    if not found["differences"]:
        console.print(f"[green]✓[/] {found['checked']:,} counters agree with the ledger.")
        return
    table(
        ("window", "subject", "counter", "ledger", "counted"),
        (
            tuple(drift[name] for name in ("window", "subject", "field", "expected", "found"))
            for drift in found["drifts"]
        ),
        empty="",
    )
    if not found["repaired"]:
        raise CliError(
            f"{found['differences']:,} counters differ from the ledger.",
            "`assay quota reconcile --repair` corrects them.",
        )
    console.print(f"{found['differences']:,} counters are put right.")


def _row(quota: dict[str, Any]) -> tuple[Any, ...]:
    kind = quota["kind"]
    shadow = Text(" shadow", style="cyan") if quota["shadow"] else Text("")
    return (
        quota["id"],
        quota["subject"],
        Text(quota["description"]) + shadow,
        _in_units(kind, quota["used"]),
        _in_units(kind, quota["reserved"]),
        quota["percent"],
        quota["stops_today"],
        quota["resets_at"],
    )


def _in_units(kind: str, amount: int | None) -> str:
    if amount is None:
        return "–"
    known = KINDS.get(kind)
    return f"{amount:,}" if known is None else amount_words(kind, amount * known.scale, "").strip()


def _other_units(units: dict[str, int]) -> str:
    """Sums in units other than tokens; a unit of a newer server is shown by its name."""
    return ", ".join(
        Unit(name).words(amount) if name in PRICED_BY_UNIT else f"{amount:,} {name}"
        for name, amount in units.items()
        if name != Unit.TOKENS
    )


def _unit_prices(price: dict[str, Any]) -> str:
    return ", ".join(
        f"{money_words(micro, price['currency'])} per "
        f"{Unit(name).singular if name in PRICED_BY_UNIT else name}"
        for name, micro in price["units"].items()
    )


def _unit_price(text: str) -> tuple[str, int]:
    name, equals, price = text.partition("=")
    if not equals or name not in PRICED_BY_UNIT:
        raise CliError(
            f"{text[:40]!r} is not UNIT=PRICE.",
            f"For example images=0.04. Units: {', '.join(PRICED_BY_UNIT)}.",
        )
    return name, _micro(price)


def _name(name: str | None, by: str) -> str:
    if not by:
        return ""
    return "everything else" if name is None else name or "(none)"


def _amount(kind: str, text: str) -> int | None:
    if text == "none":
        return None
    if kind in KINDS and KINDS[kind].unit == "money":
        return _micro(text)
    if _WHOLE.fullmatch(text) is None:
        raise CliError(f"{text[:40]!r} is not a whole number.", "Give one, or none.")
    return int(text)


def _micro(text: str) -> int:
    if _MONEY.fullmatch(text) is None:
        raise CliError(f"{text[:40]!r} is not an amount of money.", "For example 25.50.")
    return int(Decimal(text) * MICRO)
