"""`assay policy`: read, test, compare and draft access policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.options import faults, text_of
from assay.cli.output import (
    Answer,
    CliError,
    console,
    errors,
    facts,
    json_option,
    sentence,
    state,
    table,
)
from assay.cli.policy_questions import principal_body, question_body

if TYPE_CHECKING:
    from governance.policy.differences import Difference
    from governance.policy.document import Document

app = typer.Typer(no_args_is_help=True)

MaybeNumber = Annotated[
    int | None, typer.Argument(help="The policy's number; the policy in force by default.", min=1)
]
File = Annotated[Path, typer.Argument(help="Policy in YAML.", exists=True, dir_okay=False)]
Action = Annotated[str, typer.Argument(help="Action, such as deployment:invoke.")]
Thing = Annotated[
    str,
    typer.Argument(
        help="Resource as TYPE or TYPE/NAME: policy, release/7, deployment/docstring-writer."
    ),
]
Attribute = Annotated[
    list[str] | None,
    typer.Option("--attribute", help="NAME=VALUE of a hypothetical resource. Repeatable."),
]
Context = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE of the circumstances, such as time=18:30. Repeatable."),
]
Department = Annotated[str | None, typer.Option(help="Department of a hypothetical resource.")]
Policy = Annotated[
    int | None, typer.Option(help="Policy to evaluate instead of the one in force.", min=1)
]
MAX_FILE = 1024 * 1024


@app.command()
@json_option
def show(number: MaybeNumber = None) -> Answer:
    """Show a policy's rules in plain words."""
    policy = _policy(Client.signed_in(), number)
    return Answer(policy, lambda: _show(policy))


def _show(policy: dict[str, Any]) -> None:
    from governance.policy.rules import parse_rules
    from governance.policy.summaries import rule_summary

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
        (
            (rule.id, rule.effect.value, rule_summary(rule).line)
            for rule in parse_rules(policy["rules"])
        ),
        empty="The policy has no rules, so everything is denied.",
    )


@app.command()
def export(
    number: MaybeNumber = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
) -> None:
    """Write a policy as YAML to stdout or a file. Applying the file again changes nothing."""
    client = Client.signed_in()
    exported = _policy(client, number)["number"]
    text = client.get(f"policy/versions/{exported}/document")["yaml"]
    if output is None:
        console.print(text, end="", soft_wrap=True, markup=False)
        return
    output.write_text(text, encoding="utf-8")
    errors.print(f"Policy {exported} is in {output}.", markup=False)


@app.command()
@json_option
def test(
    file: Annotated[
        str,
        typer.Argument(help="Policy in YAML, tested here without a server; or a policy's number."),
    ],
) -> Answer:
    """Run a policy's own tests; exit with 1 if one fails."""
    if file.isdigit():
        results = Client.signed_in().get(f"policy/versions/{file}/tests")
    else:
        results = _tested(_document(Path(file)))
    failing = sum(not result["passed"] for result in results)
    fault = CliError(f"{failing} of {len(results)} tests fail.") if failing else None
    return Answer(results, lambda: _show_results(results), fault)


@app.command()
@json_option
def diff(
    file: Annotated[str, typer.Argument(help="Policy in YAML, or a policy's number.")],
    against: Annotated[
        int | None,
        typer.Option(help="Policy to compare with; the policy in force by default.", min=1),
    ] = None,
) -> Answer:
    """Show the rules and tests that a policy adds, removes or changes."""
    from governance.policy.differences import difference

    client = Client.signed_in()
    before = _policy(client, against)
    if file.isdigit():
        other = _policy(client, int(file))
        rules, tests = other["rules"], other["tests"]
    else:
        document = _document(Path(file))
        rules, tests = document.rules, document.tests
    changes = difference(before["rules"], rules, before["tests"], tests)
    after = int(file) if file.isdigit() else file
    data = {**changes.as_dict(), "before": before["number"], "after": after}
    return Answer(data, lambda: _show_difference(changes, before["number"], file))


@app.command()
@json_option
def apply(
    file: File,
    number: Annotated[
        int | None, typer.Option(help="Change this draft instead of creating one.", min=1)
    ] = None,
    propose_it: Annotated[
        bool, typer.Option("--propose", help="Propose the draft at once if its tests pass.")
    ] = False,
    acknowledge_removals: Annotated[
        bool,
        typer.Option(
            "--acknowledge-removals",
            help="Confirm that the policy drops rules or tests of the policy in force.",
        ),
    ] = False,
) -> Answer:
    """Draft a policy from YAML. It takes effect when another administrator approves it."""
    document = _document(file)
    client = Client.signed_in()
    active = _policy(client, None)
    if number is None and (document.rules, document.tests) == (active["rules"], active["tests"]):
        return sentence(
            active,
            f"The file equals policy {active['number']}, which is in force. No draft was created.",
        )
    body = {"rules": document.rules, "tests": document.tests, "note": document.note}
    if number is None:
        policy = client.post("policy/versions", **body)
    else:
        policy = client.patch(f"policy/versions/{number}", **body)
    address = f"policy/versions/{policy['number']}"
    fault: CliError | None = None
    results = client.get(f"{address}/tests")
    if propose_it:
        try:
            policy = client.post(f"{address}/propose", acknowledge_removals=acknowledge_removals)
        except CliError as error:
            # The draft exists, so its number is printed, too.
            fault = error
    return Answer(policy, lambda: _show_draft(policy, results), fault)


def _show_draft(policy: dict[str, Any], results: list[dict[str, Any]]) -> None:
    console.print(f"Draft {policy['number']}, based on policy {policy['based_on']}.")
    failing = [result for result in results if not result["passed"]]
    console.print(f"{len(results) - len(failing)} of its {len(results)} tests pass.")
    if failing:
        _show_results(failing)
    if policy["state"] == "proposed":
        console.print(f"Policy {policy['number']} is proposed; another administrator decides.")


@app.command()
@json_option
def explain(
    who: Annotated[
        str,
        typer.Argument(
            help="Person, key or roles: person/3, key/5, lead@clinical,reviewer:security."
        ),
    ],
    action: Action,
    thing: Thing,
    department: Department = None,
    attribute: Attribute = None,
    context: Context = None,
    policy: Policy = None,
) -> Answer:
    """Explain, rule by rule, why a person or key may or may not do something."""
    answer = Client.signed_in().post(
        "policy/explain",
        principal=principal_body(who),
        **question_body(action, thing, department, attribute, context, policy),
    )
    return Answer(answer, lambda: _show_explanation(answer))


def _show_explanation(answer: dict[str, Any]) -> None:
    console.print(answer["reason"], style="green" if answer["allowed"] else "red", markup=False)
    relevant = [rule for rule in answer["rules"] if rule["verdict"] not in _OTHERS]
    table(
        ("rule", "", "result", "reason"),
        ((row["rule"], row["effect"], row["verdict"], row["why"]) for row in relevant),
        empty="No rule is about this actor and resource.",
    )
    if others := len(answer["rules"]) - len(relevant):
        console.print(f"{others} rules about the action apply to others.", style="dim")


@app.command("who-can")
@json_option
def who_can(
    action: Action,
    thing: Thing,
    department: Department = None,
    attribute: Attribute = None,
    context: Context = None,
    policy: Policy = None,
) -> Answer:
    """List the people and keys who may do something, with the rules that permit it."""
    answer = Client.signed_in().post(
        "policy/who-can", **question_body(action, thing, department, attribute, context, policy)
    )
    return Answer(answer, lambda: _show_who_can(answer))


def _show_who_can(answer: dict[str, Any]) -> None:
    table(
        ("", "id", "name", "department", "rules"),
        (
            (row["kind"], row["id"], row["name"], row["department"], row["rules"])
            for row in [*answer["people"], *answer["keys"]]
        ),
        empty="No person or key may do this.",
    )
    people, keys = (
        f"{answer[f'{n}_total']} of {answer[f'{n}_asked']} {n}" for n in ("people", "keys")
    )
    console.print(f"{people}, {keys}.", style="dim")


@app.command()
@json_option
def replay(
    number: Annotated[int, typer.Argument(help="The policy's number.", min=1)],
    last: Annotated[int, typer.Option(min=1, max=10_000, help="Number of decisions.")] = 1000,
) -> Answer:
    """Show which of the last recorded decisions would change under a draft."""
    replayed = Client.signed_in().get(f"policy/versions/{number}/replay", last=last)
    return Answer(replayed, lambda: _show_replay(replayed, number))


def _show_replay(replayed: dict[str, Any], number: int) -> None:
    console.print(
        f"{replayed['replayed']:,} decisions in {replayed['took_ms'] / 1000:.1f} s: "
        f"{replayed['now_denied']:,} change from allowed to denied, "
        f"{replayed['now_allowed']:,} from denied to allowed "
        f"(policy {replayed['before']} → {number})."
    )
    table(
        ("action", "count", "becomes", "rules", "example"),
        (
            (
                group["action"],
                group["count"],
                state("approved" if group["allowed"] else "refused"),
                group["rules_after"] or group["rules_before"],
                group["examples"][0]["sentence"],
            )
            for group in replayed["groups"]
        ),
        empty="No decision changes.",
    )


_OTHERS = ("other_actors", "other_resources")


def _policy(client: Client, number: int | None) -> dict[str, Any]:
    if number is None:
        number = client.get("policy")["version"]
    policy: dict[str, Any] = client.get(f"policy/versions/{number}")
    return policy


def _document(path: Path) -> Document:
    from governance.errors import DomainError
    from governance.policy.document import document_from_yaml

    try:
        return document_from_yaml(text_of(path, at_most=MAX_FILE))
    except DomainError as error:
        raise CliError(f"{path}: {error.message}", faults(error)) from error


def _tested(document: Document) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from governance.policy.cases import run_cases
    from governance.policy.engine import PolicySnapshot

    snapshot = PolicySnapshot.from_rules(1, document.rules)
    return [asdict(result) for result in run_cases(snapshot, document.cases)]


def _show_results(results: list[dict[str, Any]]) -> None:
    table(
        ("test", "expected", "", "rules or reason"),
        (
            (
                result["name"],
                result["expected"],
                state("succeeded" if result["passed"] else "failed"),
                list(result["rules"]) if result["passed"] else result["reason"],
            )
            for result in results
        ),
        empty="The policy has no tests.",
    )


def _show_difference(changes: Difference, before: int, after: str) -> None:
    if changes.empty:
        console.print(f"{after} equals policy {before}.", markup=False)
        return
    rows = [
        *(("+", rule["id"], rule.get("description", "")) for rule in changes.added),
        *(("-", rule["id"], rule.get("description", "")) for rule in changes.removed),
        *(("~", rule.id, ", ".join(rule.members)) for rule in changes.changed),
        *(("+ test", name, "") for name in changes.tests_added),
        *(("- test", name, "") for name in changes.tests_removed),
        *(("~ test", name, "") for name in changes.tests_changed),
    ]
    if changes.reordered:
        rows.append(("~", "order", "the order of the rules differs, which changes no decision"))
    table(("", "rule", "description or changed fields"), rows, empty="")
