"""Transfer learning: a pretrained encoder tuned on few rows, against one with random weights.

Both have the same architecture, rows and settings. Both are measured on unseen film reviews.
`--quick` uses a quarter of the rows.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
os.environ.setdefault("ASSAY_ENV", "test")

import django

django.setup()

import torch  # noqa: E402
from transformers import AutoConfig, AutoModel  # noqa: E402

from benchmarks.ideas.films import accuracy, minilm, parts, tuned  # noqa: E402
from benchmarks.table import Row, show  # noqa: E402

TRAIN_ROWS, TEST_ROWS = 400, 400


def untrained(base: Path, folder: Path) -> Path:
    """Copy `base` with random weights and the original tokenizer."""
    shutil.copytree(base, folder)
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(base)).save_pretrained(folder)
    return folder


def main() -> None:
    """Print the accuracy of both encoders."""
    rows = parts()
    share = 4 if "--quick" in sys.argv else 1
    train, test = rows.train[: TRAIN_ROWS // share], rows.test[: TEST_ROWS // share]
    with tempfile.TemporaryDirectory(prefix="assay-ideas-") as scratch:
        folder = Path(scratch)
        adapted = tuned(minilm(), train, folder / "adapted")
        scratched = tuned(untrained(minilm(), folder / "random"), train, folder / "scratch")
        ours = accuracy(adapted.folder, test, folder)
        theirs = accuracy(scratched.folder, test, folder)
    show(
        f"Transfer learning: the same {len(train)} rows; measured on {len(test)} others",
        "from scratch",
        [
            Row.of("accuracy", "", [ours], [theirs]),
            Row.of("errors", "", [(1 - ours) * len(test)], [(1 - theirs) * len(test)]),
            Row.of("training, CPU", "s", [adapted.seconds], [scratched.seconds]),
        ],
    )


if __name__ == "__main__":
    main()
