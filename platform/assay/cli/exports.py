"""`assay versions export`: model versions as a folder, for `tools/bundle.py`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.output import Answer, CliError, console, json_option
from registry.manifests import check_path

# Each file is one response, which times out after this long without bytes.
TIMEOUT_S = 120.0
INDEX = "versions.json"


@json_option
def export(
    folder: Annotated[Path, typer.Argument(help="New folder, or one to continue.")],
    version_ids: Annotated[list[int], typer.Argument(help="Numbers of versions.", min=1)],
    evidence: Annotated[
        bool, typer.Option(help="Add the evidence packs of approved releases.")
    ] = True,
) -> Answer:
    """Download versions with their bases, model cards and evidence packs. Run it again to resume.

    The command checks the hash of each file. The audit log records each download.
    """
    client = Client.signed_in(timeout_s=TIMEOUT_S)
    versions: dict[int, dict[str, Any]] = {}
    for version_id in version_ids:
        _collect(client, version_id, versions)
    folder.mkdir(parents=True, exist_ok=True)
    entries = [_write(client, version, folder, evidence) for version in versions.values()]
    (folder / INDEX).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")

    def show() -> None:
        for entry in entries:
            console.print(f"{entry['name']}: {entry['digest']}", markup=False, soft_wrap=True)

    return Answer(entries, show)


def _collect(client: Client, version_id: int, versions: dict[int, dict[str, Any]]) -> None:
    """Add a version and the bases that it needs to `versions`, each once and bases first."""
    if version_id in versions:
        return
    version = client.get(f"versions/{version_id}")
    # Fully tuned weights need no base.
    if version["manifest"]["base"]:
        _collect(client, version["base"]["id"], versions)
    versions[version_id] = version


def _write(client: Client, version: dict[str, Any], folder: Path, evidence: bool) -> dict[str, Any]:
    """Write the files of one version; return its entry in the index."""
    name = check_path(f"{version['model']}-v{version['number']}")
    # Packs before files: a pack needs every event of its version sealed, and downloads add events.
    releases = _approved(version) if evidence else []
    for release in releases:
        pack = folder / "evidence" / f"release-{release}.zip"
        pack.parent.mkdir(exist_ok=True)
        client.download(f"releases/{release}/evidence", pack)
    files = folder / "models" / name
    for file in version["manifest"]["files"]:
        target = files / check_path(file["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or _sha256(target) != file["sha256"]:
            client.download(f"versions/{version['id']}/files/{file['sha256']}", target)
            if _sha256(target) != file["sha256"]:
                target.unlink()
                raise CliError(
                    f"{file['path']} of {version['name']} is damaged: its hash differs.",
                    "Run it again; if it fails again, run `assay store fsck` on the server.",
                )
    card = folder / "cards" / f"{name}.md"
    card.parent.mkdir(exist_ok=True)
    card.write_text(version["card"], encoding="utf-8")
    return {
        "name": name,
        "base": version["manifest"]["base"],
        "digest": version["digest"],
        "kind": version["kind"],
        "task": client.get(f"models/{version['model']}")["task"],
        "license": version["license"],
        "card": f"cards/{name}.md",
        "evidence": [f"evidence/release-{release}.zip" for release in releases],
    }


def _approved(version: dict[str, Any]) -> list[int]:
    """Return the approved releases of the version itself, without those of its descendants."""
    own = f"version:{version['id']}"
    lineage = version["lineage"]
    released = {edge["to"] for edge in lineage["edges"] if edge["from"] == own}
    return [
        int(node["id"].partition(":")[2])
        for node in lineage["nodes"]
        if node["type"] == "release" and node["state"] == "approved" and node["id"] in released
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
