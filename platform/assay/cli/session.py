"""`assay login`, `assay step-up` and `assay whoami`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from assay.cli.client import (
    CODE_PROMPT,
    Client,
    Credentials,
    checked_server,
    save_credentials,
    stored_server,
)
from assay.cli.output import Answer, CliError, console, errors, facts, json_option

ENCRYPTED_OR_LOCAL = ("http://127.0.0.1", "http://localhost", "http://[::1]", "https://")


def login(
    server: Annotated[str, typer.Option(help="URL of the server.")] = "",
    email: Annotated[str, typer.Option(help="Your e-mail address; prompts by default.")] = "",
) -> None:
    """Sign in with e-mail, password and second factor. Stores a token, never the password."""
    address = checked_server(server or stored_server())
    if not address.startswith(ENCRYPTED_OR_LOCAL):
        errors.print(f"[yellow]{address} is not encrypted; others can read your password.[/]")
    email = email or typer.prompt("E-mail")
    password = typer.prompt("Password", hide_input=True)
    answer = _token(Client(address), email, password)
    path = save_credentials(Credentials(server=address, token=answer["token"]))
    name = Client(address, answer["token"]).get("me")["name"]
    console.print(f"Signed in to {address} as {name}, until {answer['expires_at'][:16]}.")
    console.print(f"The token is in {path}.", style="dim")


def _token(client: Client, email: str, password: str) -> Any:
    """Return the server's answer; prompt for a second factor when the server requires one."""
    try:
        return client.post("auth/token", email=email, password=password)
    except CliError as error:
        if error.code != "second_factor_required":
            raise
    code = typer.prompt(CODE_PROMPT)
    return client.post("auth/token", email=email, password=password, code=code.strip())


def step_up() -> None:
    """Verify your identity with a second factor, which decisions require. Valid for ten minutes."""
    answer = Client.signed_in().step_up()
    console.print(f"Verified by {answer['method']} until {answer['fresh_until'][:16]}.")


@json_option
def whoami() -> Answer:
    """Show your account and your roles."""
    client = Client.signed_in()
    me = client.get("me")
    roles = [
        " ".join(
            part
            for part in (
                role["specialty"],
                role["role"],
                f"in {role['department']}" if role["department"] else "",
            )
            if part
        )
        for role in me["roles"]
    ]
    pairs = [
        ("server", client.server),
        ("name", me["name"]),
        ("kind", me["kind"]),
        ("departments", me["departments"]),
        ("roles", roles),
        ("scopes", "all of yours" if me["scopes"] is None else me["scopes"]),
    ]
    return Answer(me, lambda: facts(pairs))
