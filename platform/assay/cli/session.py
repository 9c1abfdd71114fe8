"""`assay login`, `assay step-up`, `assay whoami`."""

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
from assay.cli.output import CliError, console, errors, facts

LOOPBACK = ("http://127.0.0.1", "http://localhost", "http://[::1]", "https://")


def login(
    server: Annotated[str, typer.Option(help="The server's address.")] = "",
    email: Annotated[str, typer.Option(help="Your e-mail address; prompts if omitted.")] = "",
) -> None:
    """Sign in with e-mail, password and second factor; keeps a token, never the password."""
    address = checked_server(server or stored_server())
    if not address.startswith(LOOPBACK):
        errors.print(f"[yellow]{address} is not encrypted; your password travels in the clear.[/]")
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
    """Prove by a second factor who you are, as decisions ask; good for ten minutes."""
    answer = Client.signed_in().step_up()
    console.print(f"Proved by {answer['method']}; decisions may use it until ", end="")
    console.print(f"{answer['fresh_until'][:16]}.", highlight=False)


def whoami() -> None:
    """Show your account on the server, and your roles."""
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
    facts(
        [
            ("server", client.server),
            ("name", me["name"]),
            ("kind", me["kind"]),
            ("departments", me["departments"]),
            ("roles", roles),
            ("scopes", "all of yours" if me["scopes"] is None else me["scopes"]),
        ]
    )
