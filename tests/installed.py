"""Packages as an installer leaves them in a folder, without an installer."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

DECLARATION = """
import dataclasses
from tasks.text_classification import TASK as BELOW
{imports}
TASK = dataclasses.replace(
    BELOW, name="{name}", runner="{runner}",
    endpoints=(dataclasses.replace(BELOW.endpoints[0], path="/v1/tasks/{name}"),),
)
"""


def declaration(name: str, runner: str, imports: str = "") -> str:
    """Return a module that declares a task like text classification."""
    return DECLARATION.format(name=name, runner=runner, imports=textwrap.dedent(imports))


def install(
    site: Path,
    name: str,
    files: Mapping[str, str | bytes],
    *,
    version: str = "0.1.0",
    requires: Sequence[str] = (),
    task: str = "",
    unlisted: Mapping[str, str | bytes] | None = None,
) -> Path:
    """Write a distribution into a folder; `task` is the value of its entry point of that name."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {each}" for each in requires]
    written: dict[str, str | bytes] = {
        **files,
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\n",
        f"{info}/INSTALLER": "pip\n",
        f"{info}/REQUESTED": "",
    }
    if task:
        point, _, value = task.partition(" = ")
        written[f"{info}/entry_points.txt"] = f"[assay.tasks]\n{point} = {value}\n"
    for path, content in {**written, **(unlisted or {})}.items():
        file = site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    # Hashes of another installation: nothing may trust them.
    lines = [f"{path},sha256=AAAA,1" for path in written]
    (site / info / "RECORD").write_text("\n".join([*lines, f"{info}/RECORD,,"]) + "\n")
    return site / info
