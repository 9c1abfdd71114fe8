"""ONNX models, run by onnxruntime on the processor: one thread, standard operators, checked ports.

Intake has held the graph to standard operators and its data to files of the version; no library of
further operators is ever registered here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from workers.engines.architectures import UnsupportedModel


def load_session(path: Path, inputs: Mapping[str, str], output: str, threads: int = 1) -> Any:
    """Return a session whose graph takes `inputs` (element types by name) and gives `output`.

    Raises:
        UnsupportedModel: the file is missing, cannot be loaded, or takes or gives anything else.
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
    found = {each.name: each.type for each in session.get_inputs()}
    wanted = {name: f"tensor({kind})" for name, kind in inputs.items()}
    if found != wanted:
        raise UnsupportedModel(
            f"{path.name} takes {_listed(found)}; this task needs {_listed(wanted)}."
        )
    if output not in [each.name for each in session.get_outputs()]:
        raise UnsupportedModel(f"{path.name} does not give {output!r}.")
    return session


def _listed(ports: Mapping[str, str]) -> str:
    return ", ".join(f"{name[:40]} {kind[:40]}" for name, kind in sorted(ports.items())[:8])
