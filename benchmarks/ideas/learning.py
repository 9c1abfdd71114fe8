"""Continuous learning: a version retrained on corrected answers, against the previous version.

The first version learns from few film reviews, then answers others. The labels of the data replace
people who confirm right answers and correct wrong ones. The feedback becomes rows as in the product
(`registry.feedback.rows`), joins the first data, and the recipe runs again with the same settings.
Both versions are measured on unseen reviews. `--quick` uses a quarter of the rows.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
os.environ.setdefault("ASSAY_ENV", "test")

import django

django.setup()

from benchmarks.ideas.films import TASK, Rows, accuracy, minilm, parts, tuned  # noqa: E402
from benchmarks.table import Row, show  # noqa: E402
from registry.feedback.models import Feedback  # noqa: E402
from registry.feedback.rows import right_answer, row_of  # noqa: E402

FIRST_ROWS, FEEDBACK_ROWS, TEST_ROWS = 100, 200, 200


def corrected(rows: Rows) -> Rows:
    """Return the rows that come from feedback with the right labels."""
    corrected_rows = []
    for number, row in enumerate(rows):
        feedback = Feedback(
            pk=number + 1,
            request_id=f"req_{number:032x}",
            deployment="review-sentiment",
            endpoint="/v1/classify",
            task=TASK,
            rating="down",
            input={"input": row["text"]},
            correction=row["label"],
        )
        corrected_rows.append(row_of(feedback, right_answer(feedback)))
    return corrected_rows


def main() -> None:
    """Print the accuracy of both versions."""
    rows = parts()
    share = 4 if "--quick" in sys.argv else 1
    first = rows.train[: FIRST_ROWS // share]
    answers = rows.train[FIRST_ROWS : FIRST_ROWS + FEEDBACK_ROWS // share]
    test = rows.test[: TEST_ROWS // share]
    with tempfile.TemporaryDirectory(prefix="assay-ideas-") as scratch:
        folder = Path(scratch)
        before = tuned(minilm(), first, folder / "before")
        after = tuned(minilm(), first + corrected(answers), folder / "after")
        ours = accuracy(after.folder, test, folder)
        theirs = accuracy(before.folder, test, folder)
    show(
        f"Continuous learning: {len(first)} rows, then {len(answers)} pieces of feedback; measured "
        f"on {len(test)} others",
        "version before",
        [
            Row.of("accuracy", "", [ours], [theirs]),
            Row.of("errors", "", [(1 - ours) * len(test)], [(1 - theirs) * len(test)]),
        ],
    )


if __name__ == "__main__":
    main()
