"""`assay credentials`: list, show, enter, rotate and revoke secrets for providers."""

from __future__ import annotations

import sys
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
Header = Annotated[
    str, typer.Option(help="Of kind header: the header's name; authorization by default.")
]
TokenUrl = Annotated[str, typer.Option(help="Of kind oauth2: URL that gives tokens.")]
ClientId = Annotated[str, typer.Option(help="Of kind oauth2: ID of the client.")]
Scope = Annotated[str, typer.Option(help="Of kinds oauth2 and google: scope of the tokens.")]
AccessKeyId = Annotated[str, typer.Option(help="Of kind aws: ID of the access key.")]
Region = Annotated[str, typer.Option(help="Of kind aws: region of the service.")]
Service = Annotated[str, typer.Option(help="Of kind aws: the service; bedrock by default.")]


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
def create(
    department: Annotated[str, typer.Argument(help="Department that owns the credential.")],
    name: Annotated[str, typer.Argument(help="Name that descriptions of hosted models state.")],
    host: Hosts = None,
    kind: Annotated[str, typer.Option(help="Kind: header, oauth2, google or aws.")] = "header",
    header: Header = "",
    token_url: TokenUrl = "",
    client_id: ClientId = "",
    scope: Scope = "",
    access_key_id: AccessKeyId = "",
    region: Region = "",
    service: Service = "",
) -> Answer:
    """Enter a secret, read from standard input or a prompt. It is never shown again.

    It is the whole value of the header, the client's secret, the JSON key file of the service
    account, or the secret access key.
    """
    entered = present(
        header=header,
        token_url=token_url,
        client_id=client_id,
        scope=scope,
        access_key_id=access_key_id,
        region=region,
        service=service,
    )
    credential = Client.signed_in().post(
        "credentials",
        department=department,
        name=name,
        kind=kind,
        hosts=host or [],
        secret=_secret(),
        **entered,
    )
    return sentence(credential, f"Credential {credential['id']}, {name} of {department}.")


@app.command()
@json_option
def rotate(
    credential_id: CredentialId,
    host: Hosts = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Refuse if another version is current.")
    ] = None,
    header: Header = "",
    token_url: TokenUrl = "",
    client_id: ClientId = "",
    scope: Scope = "",
    access_key_id: AccessKeyId = "",
    region: Region = "",
    service: Service = "",
) -> Answer:
    """Replace the secret, read from standard input or a prompt, and with --host its hosts."""
    entered = present(
        hosts=host,
        version=version,
        header=header,
        token_url=token_url,
        client_id=client_id,
        scope=scope,
        access_key_id=access_key_id,
        region=region,
        service=service,
    )
    credential = Client.signed_in().post(
        f"credentials/{credential_id}/rotate", secret=_secret(), **entered
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
