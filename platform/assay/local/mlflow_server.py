"""MLflow's server in one process: `python -m assay.local.mlflow_server`, with options of
`mlflow server`.

That command imports MLflow, starts uvicorn, which imports it again, and then only waits: about
190 MB. Here uvicorn replaces it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import mlflow.server
from mlflow.cli import cli


def _become(command: list[str], extra_env: Mapping[str, str], **_: Any) -> NoReturn:
    """Replace this process by `command`."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], command, {**os.environ, **extra_env})  # noqa: S606


if __name__ == "__main__":
    # A version of MLflow without this function would start its own process, as its command does.
    mlflow.server._exec_cmd = _become
    cli(["server", *sys.argv[1:]])
