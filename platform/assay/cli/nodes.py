"""`assay node`: manage nodes, and make a machine a node."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.options import Reason
from assay.cli.output import Answer, CliError, console, errors, json_option, listing, sentence

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The node's name.")]
KEY_FILE = Path("/etc/assay/node.key")


@app.command()
@json_option
def enroll(name: Name) -> Answer:
    """Invite a machine, and print only its token on stdout. It works once, for an hour."""
    invitation = Client.signed_in().post("nodes", name=name)

    def show() -> None:
        errors.print(f"Node {name} is invited until {invitation['expires_at']}.", markup=False)
        errors.print("On the machine, run `assay node join URL` and enter this token:")
        console.print(invitation["token"], soft_wrap=True, markup=False)

    return Answer(invitation, show)


@app.command("list")
@json_option
def list_nodes() -> Answer:
    """List nodes with their state and use."""
    return listing(
        Client.signed_in().all("nodes", limit=1000),
        {
            "node": "name",
            "state": "state",
            "devices": lambda node: len(node["facts"].get("devices", [])),
            "memory": lambda node: _memory_in_use(node["facts"]),
            "replicas": "replicas",
            "queued": lambda node: "unknown" if node["queued"] is None else node["queued"],
            "jobs": "jobs",
            "last heartbeat": lambda node: node["seen_at"] or "never",
        },
        empty="No machine has joined. `assay node enroll NAME` invites one.",
    )


@app.command()
@json_option
def cordon(name: Name, reason: Reason = "") -> Answer:
    """Stop assigning work to a node; current work continues."""
    return _change_state(name, "cordon", reason)


@app.command()
@json_option
def uncordon(name: Name, reason: Reason = "") -> Answer:
    """Assign work to a cordoned or draining node again."""
    return _change_state(name, "uncordon", reason)


@app.command()
@json_option
def drain(name: Name, reason: Reason = "") -> Answer:
    """Move a node's deployments to other workers; its jobs run to completion."""
    return _change_state(name, "drain", reason)


@app.command()
@json_option
def revoke(name: Name, reason: Reason = "") -> Answer:
    """Revoke a node's key at once; its jobs restart on other workers."""
    return _change_state(name, "revoke", reason)


@app.command()
def join(
    url: Annotated[str, typer.Argument(help="URL of the control plane: https://…")],
    key_file: Annotated[
        Path, typer.Option(envvar="ASSAY_NODE_KEY_FILE", help="File for the machine's key.")
    ] = KEY_FILE,
) -> None:
    """Make this machine a node. Reads the token from ASSAY_NODE_TOKEN or standard input."""
    # Only machines that join need these packages.
    import httpx
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from governance.errors import DomainError
    from workers.control.messages import Joined, read
    from workers.remote.client import checked_url, refusal
    from workers.remote.identity import Identity, identity_write

    if key_file.exists():
        raise CliError(
            f"{key_file} exists: this machine is already a node.",
            "Remove the file if the node was revoked, then join again.",
        )
    try:
        base = checked_url(url)
    except DomainError as error:
        raise CliError(error.message, error.hint) from error
    token = os.environ.get("ASSAY_NODE_TOKEN", "") or _read_token()
    unnamed = Identity("", Ed25519PrivateKey.generate())
    # Before the request: a folder that cannot be written must not use up the token.
    _write(lambda: identity_write(key_file, unnamed))
    try:
        answer = httpx.post(
            f"{base}/node/v1/join",
            content=_join_body(token, unnamed.public_key),
            headers={"Content-Type": "application/json"},
            timeout=30,
        )
        if answer.status_code >= 400:
            problem = refusal(answer)
            raise CliError(problem.message, problem.hint)
        name = read(Joined, answer.content, extra="ignore").node
    except httpx.HTTPError as error:
        key_file.unlink(missing_ok=True)
        # Without a connection the token was not used.
        was_sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        raise CliError(
            f"{base} does not answer: {str(error) or type(error).__name__}.",
            "The token may be used up. If the Nodes page lists this node as active, revoke it; "
            "then enroll it again."
            if was_sent
            else "Check the address.",
        ) from error
    except DomainError as error:
        key_file.unlink(missing_ok=True)
        raise CliError(error.message, error.hint) from error
    except BaseException:
        key_file.unlink(missing_ok=True)
        raise
    _write(lambda: identity_write(key_file, Identity(name, unnamed.key)))
    console.print(f"This machine is now node {name}; its key is in {key_file}.", markup=False)
    console.print(
        f"Start workers with ASSAY_PROCESS=node ASSAY_NODE_URL={base} "
        f"ASSAY_NODE_KEY_FILE={key_file}.",
        markup=False,
    )


def _read_token() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Token", hide_input=True)).strip()
    return sys.stdin.readline().strip()


def _join_body(token: str, public_key: str) -> str:
    from workers.control.messages import JoinBody, checked_message
    from workers.remote.facts import machine_facts

    facts = machine_facts(Path.cwd())
    return checked_message(
        JoinBody, token=token, public_key=public_key, facts=facts
    ).model_dump_json()


def _write(write: Any) -> None:
    try:
        write()
    except OSError as error:
        raise CliError(
            f"The key file cannot be written: {error}.", "Give --key-file another path."
        ) from error


def _change_state(name: str, verb: str, reason: str) -> Answer:
    node = Client.signed_in().post(f"nodes/{name}/{verb}", reason=reason)
    return sentence(node, f"Node {name} is {node['state']}.")


def _memory_in_use(facts: dict[str, Any]) -> str:
    if not facts:
        return ""
    gib = 1024**3
    return f"{facts['memory_used_bytes'] / gib:.0f} of {facts['memory_bytes'] / gib:.0f} GiB"
