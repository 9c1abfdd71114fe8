"""`assay credentials`: list, show, enter, rotate and revoke secrets for providers."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from assay.cli.client import Client, present
from assay.cli.options import Limit
from assay.cli.output import Answer, CliError, facts, json_option, listing, sentence, state, table

app = typer.Typer(no_args_is_help=True)
# As the server's bound on a secret.
SECRET_MAX = 16_384
CredentialId = Annotated[int, typer.Argument(help="The credential's ID.", min=1)]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="Host that the secret may be sent to. Repeatable."),
]
# Fields of the secrets, with the help of their options.
FIELDS = {
    "header": "Of kind header: the header's name; authorization by default.",
    "token_url": "Of kind oauth2: URL that issues tokens.",
    "client_id": "Of kind oauth2: ID of the client.",
    "scope": "Of kinds oauth2 and google: scope of the tokens.",
    "access_key_id": "Of kind aws: ID of the access key.",
    "region": "Of kind aws: region of the service.",
    "service": "Of kind aws: the service; bedrock by default.",
}


def secret_options(command: Callable[..., Answer]) -> Callable[..., Answer]:
    """Add an option for each field of a secret to a command, and pass the used ones as `fields`."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> Answer:
        fields = present(**{name: options.pop(name) for name in FIELDS})
        return command(*arguments, **options, fields=fields)

    signature = inspect.signature(command, eval_str=True)
    parameters = [each for name, each in signature.parameters.items() if name != "fields"]
    for name, text in FIELDS.items():
        annotation = Annotated[str, typer.Option(help=text)]
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default="", annotation=annotation
            )
        )
    run.__dict__["__signature__"] = signature.replace(parameters=parameters)
    return run


@app.command("list")
@json_option
def list_credentials(limit: Limit = 100) -> Answer:
    """List credentials, without their secrets."""
    return listing(
        Client.signed_in().all("credentials", limit=limit),
        {
            "id": "id",
            "name": "name",
            "department": "department",
            "kind": "kind",
            "state": "state",
            "version": "version",
            "hosts": lambda credential: ", ".join(credential["hosts"]),
            "last used": "last_used_at",
        },
        empty="No credentials that you may see. `assay credentials create` enters one.",
    )


@app.command()
@json_option
def show(credential_id: CredentialId) -> Answer:
    """Show a credential, its latest uses, and the hosted versions that name it."""
    credential = Client.signed_in().get(f"credentials/{credential_id}")
    return Answer(credential, lambda: _show(credential))


def _show(credential: dict[str, Any]) -> None:
    def person(name: str) -> str:
        by, at = credential[f"{name}_by"], credential[f"{name}_at"]
        return f"{at} by {by['name']}" if by else ""

    facts(
        (
            ("name", credential["name"]),
            ("department", credential["department"]),
            ("kind", credential["kind"]),
            ("state", state(credential["state"])),
            ("version", credential["version"]),
            ("hosts", credential["hosts"]),
            ("sealed to key", credential["sealed_to"]),
            ("created", person("created")),
            ("rotated", person("rotated")),
            ("revoked", person("revoked")),
            ("named by", [version["name"] for version in credential["versions"]]),
        )
    )
    if credential["uses"]:
        table(
            ("deployment", "last used"),
            ((use["deployment"], use["used_at"]) for use in credential["uses"]),
            empty="",
        )


@app.command()
@json_option
@secret_options
def create(
    department: Annotated[str, typer.Argument(help="Department that owns the credential.")],
    name: Annotated[str, typer.Argument(help="Name that descriptions of hosted models state.")],
    host: Hosts = None,
    kind: Annotated[str, typer.Option(help="Kind: header, oauth2, google or aws.")] = "header",
    *,
    fields: dict[str, str],
) -> Answer:
    """Enter a secret, read from standard input or a prompt. It is never shown again.

    The secret is the whole value of the header, the client's secret, the JSON key file of the
    service account, or the secret access key.
    """
    credential = Client.signed_in().post(
        "credentials",
        department=department,
        name=name,
        kind=kind,
        hosts=host or [],
        secret=_secret(),
        **fields,
    )
    return sentence(credential, f"Credential {credential['id']}, {name} of {department}.")


@app.command()
@json_option
@secret_options
def rotate(
    credential_id: CredentialId,
    host: Hosts = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Rotate only if this version is current.")
    ] = None,
    *,
    fields: dict[str, str],
) -> Answer:
    """Replace the secret, read from standard input or a prompt, and with --host its hosts."""
    credential = Client.signed_in().post(
        f"credentials/{credential_id}/rotate",
        secret=_secret(),
        **present(hosts=host, version=version),
        **fields,
    )
    return sentence(
        credential, f"Credential {credential['name']} has version {credential['version']}."
    )


@app.command()
@json_option
def revoke(credential_id: CredentialId) -> Answer:
    """Revoke a credential and delete its secret. Requests with it are refused within seconds."""
    credential = Client.signed_in().post(f"credentials/{credential_id}/revoke")
    return sentence(credential, f"Credential {credential['name']} is revoked.")


def _secret() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Secret", hide_input=True)).strip()
    secret = sys.stdin.read(SECRET_MAX + 1).strip()
    if len(secret) > SECRET_MAX:
        raise CliError(f"The secret has more than {SECRET_MAX:,} characters.")
    return secret
