"""The `assay` command and Django's `manage.py`."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from assay.cli import (
    audit,
    backup,
    deployments,
    incidents,
    jobs,
    keys,
    nodes,
    people,
    policy,
    quota,
    releases,
    review_policies,
    store,
    tasks,
    uploads,
    versions,
)
from assay.cli.api import api
from assay.cli.django_commands import manage
from assay.cli.doctor import doctor
from assay.cli.local import demo, up
from assay.cli.models import models
from assay.cli.output import CliError, show_error
from assay.cli.served import served
from assay.cli.session import login, step_up, whoami

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Govern and run models. Nothing serves unless an approved release names exactly the bytes "
    "that are loaded.",
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"assay {version('assay')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Handle options that precede a command."""


app.command()(login)
app.command("step-up")(step_up)
app.command()(api)
app.command()(whoami)
app.command()(models)
app.add_typer(versions.app, name="versions")
app.add_typer(uploads.app, name="upload")
app.add_typer(deployments.app, name="deployments")
app.add_typer(incidents.app, name="incidents")
app.add_typer(jobs.app, name="jobs")
app.add_typer(releases.app, name="releases")
app.add_typer(keys.app, name="keys")
app.add_typer(nodes.app, name="node")
app.add_typer(people.app, name="people")
app.add_typer(policy.app, name="policy")
app.add_typer(review_policies.app, name="review-policies")
app.add_typer(quota.app, name="quota")
app.add_typer(audit.app, name="audit")
app.add_typer(store.app, name="store")
app.add_typer(tasks.app, name="task")
app.add_typer(backup.app, name="backup")
app.command()(served)
app.command()(doctor)
app.command()(up)
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)(demo)


@app.command()
def init(
    admin: Annotated[
        str | None, typer.Option(help="E-mail address of the first administrator.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the first administrator.")] = None,
) -> None:
    """Set up an installation: check settings, migrate, and invite the first administrator.

    Without DATABASE_URL, it is the installation of `assay up` in this folder.
    """
    values = {"--admin": admin, "--name": name}
    options = [part for flag, value in values.items() if value for part in (flag, value)]
    manage(["assay", "init", *options], begins=True)


@app.command(
    "manage",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def manage_command(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Django command and its arguments.")
    ] = None,
) -> None:
    """Run a Django command, such as `assay manage migrate`."""
    manage(["assay manage", *(arguments or [])])


def main() -> NoReturn:
    """Run the command line; every error ends as one sentence and exit code 1."""
    try:
        app()
    except CliError as error:
        show_error(error)
    except KeyboardInterrupt:
        show_error(CliError("Interrupted."))
    except Exception as error:
        show_error(CliError(f"Unexpected error: {type(error).__name__}: {error}"))
    sys.exit(1)
