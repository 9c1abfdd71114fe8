"""`assay policy …`: who may do what, as code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.models import Limit
from assay.cli.output import CliError, console, errors, facts, state, table
from assay.cli.policy_questions import asked_principal, asked_question

if TYPE_CHECKING:
    from governance.policy.document import Document

app = typer.Typer(no_args_is_help=True, help="Who may do what: rules, drafts, tests, dry runs.")

Acknowledge = Annotated[
    bool,
    typer.Option(
        "--acknowledge-removals",
        help="Confirm that the policy drops rules or tests of the policy in force.",
    ),
]
Number = Annotated[int, typer.Argument(help="The policy's number.", min=1)]
MaybeNumber = Annotated[
    int | None, typer.Argument(help="The policy's number; that in force if left out.", min=1)
]
File = Annotated[Path, typer.Argument(help="A policy in YAML.", exists=True, dir_okay=False)]
Action = Annotated[str, typer.Argument(help="For example deployment:invoke.")]
Thing = Annotated[
    str, typer.Argument(help="TYPE, or TYPE/NAME: deployment/docstring-writer, release/7, policy.")
]
Attribute = Annotated[
    list[str] | None,
    typer.Option("--attribute", help="NAME=VALUE of a thing that is only described; repeatable."),
]
Context = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE, such as time=18:30; may be repeated.")
]
Department = Annotated[str | None, typer.Option(help="Whose a described thing is.")]
Policy = Annotated[
    int | None, typer.Option(help="Under that policy instead of the one in force.", min=1)
]
MAX_FILE = 1024 * 1024


@app.command("list")
def list_policies(limit: Limit = 25) -> None:
    """Policies that you may see, newest first."""
    table(
        ("number", "state", "rules", "tests", "based on", "note", "proposed by", "decided by"),
        (
            (
                row["number"],
                state(row["state"]),
                row["rule_count"],
                row["test_count"],
                row["based_on"],
                row["note"],
                (row["proposed_by"] or {}).get("name"),
                (row["decided_by"] or {}).get("name"),
            )
            for row in Client.signed_in().all("policy/versions", limit=limit)
        ),
        empty="No policies that you may see.",
    )


@app.command()
def show(number: MaybeNumber = None) -> None:
    """A policy's rules in plain words."""
    from governance.policy.rules import parse_rules
    from governance.policy.sentences import rule_words

    client = Client.signed_in()
    policy = _policy(client, number)
    facts(
        [
            ("policy", policy["number"]),
            ("state", state(policy["state"])),
            ("note", policy["note"]),
            ("based on", policy["based_on"]),
            ("proposed by", (policy["proposed_by"] or {}).get("name")),
            ("decided by", (policy["decided_by"] or {}).get("name")),
            ("digest", policy["digest"]),
        ]
    )
    console.print()
    table(
        ("rule", "", "in words"),
        ((rule.id, rule.effect.value, rule_words(rule)) for rule in parse_rules(policy["rules"])),
        empty="It has no rules: everything is denied.",
    )


@app.command()
def export(
    number: MaybeNumber = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Into this file.")] = None,
) -> None:
    """A policy as YAML, on stdout or into a file. Applying it again changes nothing."""
    client = Client.signed_in()
    wanted = _policy(client, number)["number"]
    text = client.get(f"policy/versions/{wanted}/document")["yaml"]
    if output is None:
        console.print(text, end="", soft_wrap=True, markup=False)
        return
    output.write_text(text, encoding="utf-8")
    errors.print(f"Policy {wanted} is in {output}.", markup=False)


@app.command()
def test(
    file: Annotated[
        str, typer.Argument(help="A policy in YAML, tested here without a server; or a number.")
    ],
) -> None:
    """A policy's own tests. Exit code 1 when one fails."""
    if file.isdigit():
        results = Client.signed_in().get(f"policy/versions/{file}/tests")
    else:
        results = _tested(_document(Path(file)))
    failing = _show_results(results)
    if failing:
        raise CliError(f"{failing} of {len(results)} tests fail.")


@app.command()
def diff(
    file: Annotated[str, typer.Argument(help="A policy in YAML, or a number.")],
    against: Annotated[
        int | None, typer.Option(help="The policy to compare with; that in force.", min=1)
    ] = None,
) -> None:
    """Show the changes of a policy: rules and tests that are added, removed or changed."""
    from governance.policy.differences import difference

    client = Client.signed_in()
    before = _policy(client, against)
    if file.isdigit():
        other = _policy(client, int(file))
        rules, tests = other["rules"], other["tests"]
    else:
        document = _document(Path(file))
        rules, tests = document.rules, document.tests
    _show_difference(
        difference(before["rules"], rules, before["tests"], tests), before["number"], file
    )


@app.command()
def apply(
    file: File,
    number: Annotated[
        int | None, typer.Option(help="Change this draft instead of making one.", min=1)
    ] = None,
    propose_it: Annotated[
        bool, typer.Option("--propose", help="Propose it at once if its tests pass.")
    ] = False,
    acknowledge_removals: Acknowledge = False,
) -> None:
    """Draft a policy from YAML. Nothing is in force until a second admin approves it."""
    document = _document(file)
    client = Client.signed_in()
    active = _policy(client, None)
    if number is None and (document.rules, document.tests) == (active["rules"], active["tests"]):
        console.print(f"Policy {active['number']}, which is in force, says the same. Nothing made.")
        return
    body = {"rules": document.rules, "tests": document.tests, "note": document.note}
    if number is None:
        made = client.post("policy/versions", **body)
    else:
        made = client.patch(f"policy/versions/{number}", **body)
    console.print(f"Draft {made['number']}, based on policy {made['based_on']}.")
    results = client.get(f"policy/versions/{made['number']}/tests")
    failing = [result for result in results if not result["passed"]]
    console.print(f"{len(results) - len(failing)} of its {len(results)} tests pass.")
    if failing:
        _show_results(failing)
    if propose_it:
        propose(made["number"], acknowledge_removals)


@app.command()
def propose(number: Number, acknowledge_removals: Acknowledge = False) -> None:
    """Ask for a decision on a draft, which freezes it."""
    Client.signed_in().post(
        f"policy/versions/{number}/propose", acknowledge_removals=acknowledge_removals
    )
    console.print(f"Policy {number} is proposed; another administrator decides.")


@app.command()
def approve(
    number: Number,
    note: Annotated[str, typer.Option(help="Note kept with the approval.")] = "",
    acknowledge_removals: Acknowledge = False,
) -> None:
    """Put a proposal in force, at once. You wrote no part of it."""
    Client.signed_in().post(
        f"policy/versions/{number}/approve", note=note, acknowledge_removals=acknowledge_removals
    )
    console.print(f"Policy {number} is in force.")


@app.command()
def reject(number: Number, reason: Annotated[str, typer.Option(prompt=True, help="Why.")]) -> None:
    """Refuse a proposal for good."""
    Client.signed_in().post(f"policy/versions/{number}/reject", reason=reason)
    console.print(f"Policy {number} is rejected.")


@app.command()
def withdraw(
    number: Number, reason: Annotated[str, typer.Option(prompt=True, help="Why.")]
) -> None:
    """Take a proposal back."""
    Client.signed_in().post(f"policy/versions/{number}/withdraw", reason=reason)
    console.print(f"Policy {number} is withdrawn.")


@app.command()
def explain(
    who: Annotated[
        str,
        typer.Argument(help="person/3, key/5, or roles such as lead@clinical,reviewer:security."),
    ],
    action: Action,
    thing: Thing,
    department: Department = None,
    attribute: Attribute = None,
    context: Context = None,
    policy: Policy = None,
) -> None:
    """Explain, rule by rule, why a person or key may or may not do something."""
    found = Client.signed_in().post(
        "policy/explain",
        principal=asked_principal(who),
        **asked_question(action, thing, department, attribute, context, policy),
    )
    console.print(found["reason"], style="green" if found["allowed"] else "red", markup=False)
    about = [rule for rule in found["rules"] if rule["verdict"] not in _OTHERS]
    table(
        ("rule", "", "came out", "why"),
        ((row["rule"], row["effect"], row["verdict"], row["why"]) for row in about),
        empty="No rule is about them and this.",
    )
    if others := len(found["rules"]) - len(about):
        console.print(f"{others} rules about the action apply to others.", style="dim")


@app.command("who-can")
def who_can(
    action: Action,
    thing: Thing,
    department: Department = None,
    attribute: Attribute = None,
    context: Context = None,
    policy: Policy = None,
) -> None:
    """Everybody who may do something, with the rules that let them."""
    found = Client.signed_in().post(
        "policy/who-can", **asked_question(action, thing, department, attribute, context, policy)
    )
    table(
        ("", "id", "name", "department", "by"),
        (
            (row["kind"], row["id"], row["name"], row["department"], row["rules"])
            for row in [*found["people"], *found["keys"]]
        ),
        empty="No person or key may.",
    )
    people, keys = (
        f"{found[f'{n}_total']} of {found[f'{n}_asked']} {n}" for n in ("people", "keys")
    )
    console.print(f"{people}, {keys}.", style="dim")


@app.command()
def replay(
    number: Number,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many decisions.")] = 1000,
) -> None:
    """Dry run: the last recorded decisions under a draft, and every verdict that flips."""
    found = Client.signed_in().get(f"policy/versions/{number}/replay", last=last)
    console.print(
        f"{found['replayed']:,} decisions repeated in {found['took_ms'] / 1000:.1f} s: "
        f"{found['now_denied']:,} would be denied that are allowed, "
        f"{found['now_allowed']:,} allowed that are denied (policy {found['before']} → {number})."
    )
    table(
        ("action", "count", "becomes", "by", "for example"),
        (
            (
                group["action"],
                group["count"],
                state("approved" if group["allowed"] else "refused"),
                group["rules_after"] or group["rules_before"],
                group["examples"][0]["sentence"],
            )
            for group in found["groups"]
        ),
        empty="No decision changes.",
    )


_OTHERS = ("other_actors", "other_resources")


def _policy(client: Client, number: int | None) -> dict[str, Any]:
    wanted = client.get("policy")["version"] if number is None else number
    found: dict[str, Any] = client.get(f"policy/versions/{wanted}")
    return found


def _document(path: Path) -> Document:
    from governance.errors import DomainError
    from governance.policy.document import document_from_yaml

    try:
        if path.stat().st_size > MAX_FILE:
            raise CliError(f"{path} has more than {MAX_FILE:,} bytes.")
        return document_from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{path} cannot be read: {error}.") from error
    except DomainError as error:
        wrong = [f"{where}: {'; '.join(why)}" for where, why in list(error.fields.items())[:10]]
        raise CliError(f"{path}: {error.message}", "\n".join(wrong)) from error


def _tested(document: Document) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from governance.policy.cases import run_cases
    from governance.policy.engine import PolicySnapshot

    snapshot = PolicySnapshot.from_rules(1, document.rules)
    return [asdict(result) for result in run_cases(snapshot, document.cases)]


def _show_results(results: list[dict[str, Any]]) -> int:
    table(
        ("test", "expects", "", "by"),
        (
            (
                result["name"],
                result["expected"],
                state("succeeded" if result["passed"] else "failed"),
                list(result["rules"]) if result["passed"] else result["reason"],
            )
            for result in results
        ),
        empty="It has no tests.",
    )
    return sum(not result["passed"] for result in results)


def _show_difference(found: Any, before: int, after: str) -> None:
    if found.empty:
        console.print(f"{after} says what policy {before} says.", markup=False)
        return
    rows = [
        *(("+", rule["id"], rule.get("description", "")) for rule in found.added),
        *(("-", rule["id"], rule.get("description", "")) for rule in found.removed),
        *(("~", rule.id, ", ".join(rule.members)) for rule in found.changed),
        *(("+ test", name, "") for name in found.tests_added),
        *(("- test", name, "") for name in found.tests_removed),
        *(("~ test", name, "") for name in found.tests_changed),
    ]
    if found.reordered:
        rows.append(("~", "order", "the rules stand in another order, which changes no verdict"))
    table(("", "rule", "what"), rows, empty="")
