"""The `assay` command and Django's `manage.py`."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Annotated, Any, NamedTuple, NoReturn, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_from_info, get_command_name
from typer.models import CommandInfo

from assay.cli.output import INTERRUPTED, CliError, show_error


class Entry(NamedTuple):
    """Command or group: its `module:attribute` in this package, and its line in `--help`."""

    target: str
    help: str
    # The command gets every argument, including `--help`.
    raw: bool = False


ALL = {
    "login": Entry("session:login", "Sign in with e-mail, password and second factor."),
    "whoami": Entry("session:whoami", "Show your account and your roles."),
    "step-up": Entry("session:step_up", "Verify your identity with a second factor."),
    "models": Entry("models:app", "Models: list, show and create them."),
    "versions": Entry("versions:app", "Versions of models: readiness, recall, prompts, exports."),
    "upload": Entry("uploads:app", "Upload files; run the command again to resume."),
    "intakes": Entry("intakes:app", "Uploaded model files: their checks and sign-off."),
    "datasets": Entry("datasets:app", "Datasets: create them, and read their rows."),
    "gates": Entry("gates:app", "Gates: thresholds that versions must pass."),
    "fine-tunes": Entry("fine_tunes:app", "Fine-tunes: train a version of a model on a dataset."),
    "evaluations": Entry("evaluations:app", "Evaluations: measure a version on a dataset."),
    "jobs": Entry("jobs:app", "Jobs: follow, compare, cancel, clone and retry them."),
    "releases": Entry("releases:app", "Releases: requests to run a version, and their reviews."),
    "reviews": Entry("reviews:app", "Reviews: list all, or those that wait for you."),
    "deployments": Entry("deployments:app", "Deployments: approved releases that serve."),
    "served": Entry("served:served", "Show what served a department at a moment, and why."),
    "incidents": Entry("incidents:app", "Incidents, and the deployments that they suspend."),
    "keys": Entry("keys:app", "API keys of departments, and your access tokens."),
    "credentials": Entry("credentials:app", "Secrets with which hosted models are called."),
    "requests": Entry("requests:app", "Requests: list, show and export them."),
    "quota": Entry("quota:app", "Quotas, budgets and usage."),
    "api": Entry("api:api", "Send any request to the API, and print the answer."),
    "people": Entry("people:app", "People, their roles and their access."),
    "policy": Entry("policy:app", "The access policy: rules, tests, drafts and dry runs."),
    "review-policies": Entry("review_policies:app", "Review policies: requirements of each tier."),
    "audit": Entry("audit:app", "Export and verify the audit log."),
    "node": Entry("nodes:app", "Nodes: machines that run workers and have no database."),
    "store": Entry("store:app", "Maintain the artifact store, with controller settings."),
    "task": Entry("tasks:app", "Packages of tasks."),
    "backup": Entry("backup:app", "Back up and restore the database and the artifact store."),
    "doctor": Entry("doctor:doctor", "Check the services that this installation needs."),
    "up": Entry("local:up", "Run a whole installation on this machine."),
    "init": Entry("django_commands:init", "Set up an installation."),
    "manage": Entry("django_commands:manage_command", "Run a Django command.", raw=True),
    "demo": Entry("local:demo", "Run the demonstration.", raw=True),
}


@dataclass(frozen=True)
class Part:
    """Command of a group: its help, and the function that builds it."""

    help: str
    build: Callable[[], Any]


class Commands(TyperGroup):
    """Group that builds a command only when it runs; to import and build all takes 0.4 s."""

    def __init__(self, *, parts: Mapping[str, Part] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.parts = parts or {
            name: Part(entry.help, partial(_load, name)) for name, entry in ALL.items()
        }
        for name, part in self.parts.items():
            # The list cuts `help` at the width of the terminal, and wraps `short_help`.
            summary = part.help.partition("\n")[0]
            self.add_command(TyperCommand(name, short_help=summary), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Build the requested command before it is resolved."""
        if args and args[0] in self.parts:
            self.build(args[0])
        return super().resolve_command(ctx, args)

    def build(self, name: str) -> Any:
        """Build a command, which replaces the placeholder with its help."""
        command = self.parts[name].build()
        self.add_command(command, name)
        return command

    def build_all(self) -> Commands:
        """Build all commands, and return this group."""
        for name in self.parts:
            if isinstance(command := self.build(name), Commands):
                command.build_all()
        return self


def _load(name: str) -> Any:
    """Import a command's module, and return the command or group."""
    entry = ALL[name]
    module, _, attribute = entry.target.partition(":")
    command = getattr(import_module(f"assay.cli.{module}"), attribute)
    if not isinstance(command, typer.Typer):
        settings = {"allow_extra_args": True, "ignore_unknown_options": True}
        return _built(
            CommandInfo(
                name,
                callback=command,
                context_settings=settings if entry.raw else None,
                add_help_option=not entry.raw,
            )
        )
    parts = {
        info.name or get_command_name(info.callback.__name__): Part(
            inspect.getdoc(info.callback) or "", partial(_built, info)
        )
        for info in command.registered_commands
        if info.callback is not None
    }
    return Commands(
        parts=parts, name=name, help=entry.help, no_args_is_help=True, rich_markup_mode=None
    )


def _built(info: CommandInfo) -> Any:
    return get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)


def every_command() -> Commands:
    """Return the `assay` command with all its commands built, for references and tests."""
    group: Any = typer.main.get_command(app)
    return cast("Commands", group).build_all()


# Plain help: the modules that draw boxes take half of the time of `--help`.
app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Govern and run models. Nothing serves unless an approved release names exactly the bytes "
    "that are loaded.",
    epilog="Exit codes: 0 success, 1 error, 2 wrong usage, 4 refused by the server, "
    "5 failed on the server, 130 interrupted.",
)


def _show_version(requested: bool) -> None:
    if requested:
        # Imported here: it takes longer than everything that `--help` imports.
        from importlib.metadata import version

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


def execute() -> NoReturn:
    """Run the command of this process; every error ends as one sentence and an exit code."""
    try:
        app()
    except CliError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        # Before `app` runs, which ends on its own with this code.
        sys.exit(INTERRUPTED)
    except Exception as error:
        show_error(CliError(f"Unexpected error: {type(error).__name__}: {error}"))
    sys.exit(1)


def main() -> NoReturn:
    """Run the command, and end this process."""
    try:
        execute()
    finally:
        # At exit, the interpreter collects garbage in all modules, which takes as long as `--help`.
        # It skips frozen objects.
        gc.freeze()
