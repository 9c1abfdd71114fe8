"""`assay api METHOD PATH`: send any request to the management API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

import typer

from assay.cli.client import Client
from assay.cli.options import json_pair, pair
from assay.cli.output import CliError, console

Texts = list[str] | None


def api(
    method: Annotated[
        Literal["get", "post", "put", "patch", "delete"],
        typer.Argument(help="HTTP method.", case_sensitive=False),
    ],
    path: Annotated[str, typer.Argument(help="Path below /api/v1/, such as schedules/7/pause.")],
    fields: Annotated[
        Texts,
        typer.Option("-F", "--field", help="NAME=VALUE; the value is JSON if it parses as JSON."),
    ] = None,
    raw_fields: Annotated[
        Texts, typer.Option("-f", "--raw-field", help="NAME=VALUE; the value is text.")
    ] = None,
    files: Annotated[
        Texts, typer.Option("--file", help="NAME=PATH; sends a form with this file.")
    ] = None,
    body: Annotated[
        str | None, typer.Option("--input", help="File with the body; - for standard input.")
    ] = None,
    headers: Annotated[
        Texts, typer.Option("-H", "--header", help="NAME: VALUE, such as Idempotency-Key: 4711.")
    ] = None,
    paginate: Annotated[
        bool, typer.Option("--paginate", help="Return the items of all pages of a list.")
    ] = False,
) -> None:
    """Send a request to the API and print the answer.

    Reaches every operation that /api/docs/ lists. Fields go into the query of GET and into the
    body of the other methods. Exits with 4 if the server rejects the request,
    and with 5 if the server fails.
    """
    address = urlsplit(path)
    if address.scheme or address.netloc:
        # The token is only for the server of the sign-in.
        raise CliError(f"{path} is a URL.", "Give only the path, such as jobs.")
    operation = address.path.removeprefix("/api/v1").strip("/")
    query: dict[str, Any] = dict(parse_qs(address.query))
    values = dict(map(json_pair, fields or ())) | dict(map(pair, raw_fields or ()))
    options: dict[str, Any] = {"headers": dict(map(_header, headers or ()))}
    if method == "get":
        query |= values
    elif files:
        options["data"] = values
        options["files"] = {name: (Path(file).name, _read(file)) for name, file in map(pair, files)}
    elif body is not None:
        options["content"] = _read(body)
        options["headers"] = {"Content-Type": "application/json"} | options["headers"]
    elif values:
        options["json"] = values
    client = Client.signed_in()
    if paginate:
        console.print_json(data=list(client.all(operation, limit=sys.maxsize, **query)))
        return
    with client.request(method.upper(), operation, params=query, **options) as response:
        kind = response.headers.get("content-type", "").partition(";")[0]
        if kind.endswith("json"):
            console.print_json(response.read().decode())
        elif kind and sys.stdout.isatty():
            raise CliError(f"The answer is a file ({kind}).", "Redirect it: > FILE.")
        else:
            for chunk in response.iter_bytes():
                sys.stdout.buffer.write(chunk)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise CliError(f"{text!r} is not NAME: VALUE.", "For example Idempotency-Key: 4711.")
    return name.strip(), value.strip()


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}.") from error
