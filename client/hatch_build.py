"""Generate the package `assay_client` from `openapi.json` while the wheel is built, and add
the folder `notebook` to it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GeneratedClient(BuildHookInterface):
    """Hook that adds the generated package to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        self.folder = TemporaryDirectory()
        package = Path(self.folder.name, "assay_client")
        document = Path(self.folder.name, "openapi.json")
        description = json.loads((root / "openapi.json").read_text(encoding="utf-8"))
        document.write_text(json.dumps(_without_nodes(description)), encoding="utf-8")
        # A warning means that the client lacks an operation.
        subprocess.run(
            [sys.executable, "-m", "openapi_python_client", "generate", "--meta=none",
             f"--path={document}", f"--config={root / 'generator.yaml'}",
             f"--output-path={package}", "--fail-on-warning"],
            check=True,
        )  # fmt: skip
        (package / "py.typed").touch()
        shutil.copytree(root / "notebook", package / "notebook")
        build_data["force_include"][str(package)] = "assay_client"
        build_data["pure_python"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.target_name == "wheel":
            self.folder.cleanup()


def _without_nodes(description: dict[str, Any]) -> dict[str, Any]:
    """Return the description without the API of nodes and its schemas."""
    paths = {path: item for path, item in description["paths"].items() if "/node/" not in path}
    schemas, needed, unread = description["components"]["schemas"], {}, [paths]
    while unread:
        for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(unread.pop())):
            if name not in needed:
                needed[name] = schemas[name]
                unread.append(schemas[name])
    return {
        **description,
        "paths": paths,
        "components": {**description["components"], "schemas": needed},
    }
