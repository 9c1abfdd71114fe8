"""ONNX models, run by onnxruntime on the CPU: one thread, standard operators, checked ports.

Intake has checked that the graph uses only standard operators and only data files of the version;
this module never registers a library of custom operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from workers.engines.architectures import UnsupportedModel


def load_session(path: Path, inputs: Mapping[str, str], output: str, threads: int = 1) -> Any:
    """Return a session whose graph takes `inputs` (element types by name) and returns `output`.

    Raises:
        UnsupportedModel: the file is missing, cannot be loaded, or has other ports.
    """
    if not path.is_file():
        raise UnsupportedModel(f"The model has no {path.name}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise UnsupportedModel(f"{path.name} cannot be loaded: {str(error)[:200]}") from error
    ports = {each.name: each.type for each in session.get_inputs()}
    required = {name: f"tensor({kind})" for name, kind in inputs.items()}
    if ports != required:
        raise UnsupportedModel(
            f"{path.name} takes {_listed(ports)}; this task needs {_listed(required)}."
        )
    if output not in [each.name for each in session.get_outputs()]:
        raise UnsupportedModel(f"{path.name} does not give {output!r}.")
    return session


def _listed(ports: Mapping[str, str]) -> str:
    return ", ".join(f"{name[:40]} {kind[:40]}" for name, kind in sorted(ports.items())[:8])
