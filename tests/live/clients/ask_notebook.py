"""Run the notebook in examples/: URL and token in, the texts of its outputs out as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

URL, TOKEN = sys.argv[1:]
os.environ |= {"ASSAY_SERVER": URL, "ASSAY_TOKEN": TOKEN}
notebook = nbformat.read(Path(__file__).parents[3] / "examples" / "fine-tune.ipynb", as_version=4)
NotebookClient(notebook, timeout=600).execute()
outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
json.dump(
    [
        output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue", "")
        for output in outputs
    ],
    sys.stdout,
)
