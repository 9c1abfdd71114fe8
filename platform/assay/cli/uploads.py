"""`assay upload`: upload files of models and datasets in parts that resume."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.following import follow_job
from assay.cli.intakes import show_intake
from assay.cli.options import Follow, pair, version_id
from assay.cli.output import Answer, CliError, errors, facts, json_option

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

CHUNK = 8 * 1024 * 1024
# A broken connection is retried for about a minute; after that, the same command resumes.
ATTEMPTS = 8
LONGEST_WAIT_S = 15.0
# Codes of errors after which the upload continues at the server's offset; "" is a lost connection.
AGAIN = frozenset(
    {"", "checksum_mismatch", "offset_mismatch", "overloaded", "unavailable", "upload_complete"}
)
# The server hashes a file after its last byte, and copies it at its intake.
TIMEOUT_S = 900.0

BaseVersion = Annotated[
    str, typer.Option(help="Base version of an adapter: its ID, MODEL:NUMBER, or MODEL.")
]

app = typer.Typer(no_args_is_help=True)


@app.command("model")
@json_option
def upload_model(
    model: Annotated[str, typer.Argument(help="Model for the new version.")],
    paths: Annotated[list[Path], typer.Argument(help="Files, or one folder.", exists=True)],
    source: Annotated[str, typer.Option(help="Origin of the files.")],
    license_: Annotated[str, typer.Option("--license", help="SPDX identifier.")],
    keep_gguf: Annotated[
        bool, typer.Option("--keep-gguf", help="Keep a GGUF as uploaded, for llama.cpp.")
    ] = False,
    base: BaseVersion = "",
    follow: Follow = False,
) -> Answer:
    """Upload a model's files for intake. Run it again to resume."""
    about = {
        "source": source,
        "license": license_,
        **({"keep_gguf": True} if keep_gguf else {}),
    }
    return _deliver(model, _files(paths), about, base, follow=follow)


@app.command("version")
@json_option
def upload_version(
    bundle: Annotated[Path, typer.Argument(help="Verified bundle.", exists=True)],
    name: Annotated[
        str, typer.Argument(help="Name of the model in the bundle, such as minilm-v1.")
    ],
    model: Annotated[str, typer.Option(help="Model for the version.")],
    base: BaseVersion = "",
    follow: Follow = False,
) -> Answer:
    """Upload a version from a bundle for intake. Run it again to resume.

    Intake rejects the files unless they have the version's digest.
    """
    version = _bundled(bundle, name)
    if version["kind"] == "prompt":
        # Imported when it is used: the catalog of tasks takes longer than `--help`.
        from registry.catalog.prompt import PROMPT_FILE

        raise CliError(
            f"{name} is a prompt, which has no intake.",
            f"Run `assay versions prompt {model} {bundle}/models/{name}/{PROMPT_FILE} --base …`.",
        )
    files = _files([bundle / "models" / name])
    # A kept GGUF is uploaded alone, as the first time; intake derives the other files from it.
    ggufs = [each for each in files if each[0].lower().endswith(".gguf")]
    about = {
        "source": f"{name} of a bundle, digest {version['digest']}",
        "license": version["license"],
        "digest": version["digest"],
        **({"keep_gguf": True} if ggufs else {}),
    }
    return _deliver(model, ggufs or files, about, base, follow=follow)


def _bundled(bundle: Path, name: str) -> dict[str, Any]:
    """Return the entry of an exported version in the index of a bundle."""
    try:
        models = json.loads((bundle / "index.json").read_bytes())["models"]
        version = next((each for each in models if each["name"] == name), None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CliError(f"{bundle} is not a bundle: {error!r}.") from error
    if version is None or "kind" not in version:
        raise CliError(
            f"The bundle has no exported version {name}.",
            "Run `assay upload model` for a model that was added as a folder.",
        )
    return dict(version)


def _deliver(
    model: str, files: list[tuple[str, Path]], about: dict[str, Any], base: str, *, follow: bool
) -> Answer:
    """Upload the files, start their intake, and follow its checks if requested."""
    client = Client.signed_in(timeout_s=TIMEOUT_S)
    department = client.get(f"models/{model}")["department"]
    place = _Place("intake", model, department)
    if base:
        about = {**about, "base_version": version_id(client, base)}
    ids = [_send(client, place, name, path) for name, path in files]
    intake = client.post("intakes", model=model, uploads=ids, **about)
    if follow and intake["job"]:
        follow_job(client, intake["job"])
        intake = client.get(f"intakes/{intake['id']}")
        return Answer(intake, lambda: show_intake(intake))
    names = ("id", "state", "reason", "job")
    return Answer(intake, lambda: facts((name, intake[name]) for name in names))


@app.command("dataset")
@json_option
def upload_dataset(
    name: Annotated[str, typer.Argument(help="Dataset for the new version.")],
    path: Annotated[
        Path, typer.Argument(help="TSV, CSV, JSON lines, Parquet or zip.", exists=True)
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=COLUMN of the file, such as text=review. Repeatable."),
    ] = None,
) -> Answer:
    """Upload a file as the next version of a dataset. Run it again to resume."""
    client = Client.signed_in(timeout_s=TIMEOUT_S)
    columns = dict(pair(each) for each in column or [])
    department = client.get(f"datasets/{name}")["department"]
    upload_id = _send(client, _Place("dataset", name, department), path.name, path)
    body: dict[str, Any] = {"columns": columns} if columns else {}
    version = client.post(f"datasets/{name}/versions", upload=upload_id, **body)
    names = ("id", "name", "rows", "digest")
    return Answer(version, lambda: facts((name, version[name]) for name in names))


def _files(paths: list[Path]) -> list[tuple[str, Path]]:
    """Return the name and path of each file; files of a folder are named by their path in it."""
    if len(paths) == 1 and paths[0].is_dir():
        folder = paths[0]
        files = sorted(each for each in folder.rglob("*") if each.is_file())
        return [(each.relative_to(folder).as_posix(), each) for each in files]
    if folders := [each for each in paths if each.is_dir()]:
        raise CliError(f"{folders[0]} is a folder.", "Give files, or a single folder.")
    return [(each.name, each) for each in paths]


@dataclass(frozen=True)
class _Place:
    """Purpose, target and department of uploaded files."""

    kind: str
    target: str
    department: str


def _send(client: Client, place: _Place, name: str, path: Path) -> str:
    """Upload one file, starting where an earlier run stopped; return the upload's ID."""
    # Imported when files are sent, so that `--help` is quick.
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    size = path.stat().st_size
    if size == 0:
        raise CliError(f"{path} is empty.")
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors) as progress, path.open("rb") as file:
        task = progress.add_task(f"hashing {name}", total=size)
        sha256 = _hashed(file, progress, task)
        about = {"kind": place.kind, "filename": name, "size": size, "sha256": sha256}
        upload = _unfinished(client, {**about, "department": place.department})
        upload = upload or client.post("uploads", target=place.target, **about)
        if upload["received"]:
            errors.print(f"{name}: resuming at {upload['received']:,} of {size:,} bytes.")
        progress.reset(task, description=name, total=size, completed=upload["received"])
        offset, failures = upload["received"], 0
        while offset < size:
            file.seek(offset)
            chunk = file.read(CHUNK)
            if not chunk:
                raise CliError(f"{path} became shorter while it was uploaded.", "Run it again.")
            try:
                offset, failures = client.append(upload["id"], offset, chunk, _digest(chunk)), 0
            except CliError as error:
                failures += 1
                if error.code not in AGAIN or failures > ATTEMPTS:
                    raise
                time.sleep(min(2.0**failures / 4, LONGEST_WAIT_S))
                offset = _received(client, upload["id"], offset)
            progress.update(task, completed=offset)
    return str(upload["id"])


def _received(client: Client, upload: str, offset: int) -> int:
    """Return the number of bytes that the server has; `offset` if it cannot be reached."""
    try:
        return int(client.get(f"uploads/{upload}")["received"])
    except CliError as error:
        if error.code:
            raise
        return offset


def _hashed(file: Any, progress: Progress, task: TaskID) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        progress.advance(task, len(chunk))
    return digest.hexdigest()


def _digest(chunk: bytes) -> str:
    return f"sha256 {base64.b64encode(hashlib.sha256(chunk).digest()).decode()}"


def _unfinished(client: Client, about: dict[str, Any]) -> dict[str, Any] | None:
    """Return the upload of the same file by an earlier run, complete or not."""
    for each in client.all("uploads", limit=1000):
        if all(each[name] == value for name, value in about.items()):
            return each
    return None
