"""Dataset versions made from accepted feedback, alone or after the rows of a base version."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from governance.errors import InvalidInput, NotFound, Unavailable, WrongState
from governance.principals import Principal
from registry.catalog import get_row_kind
from registry.catalog.declaration import RowKind
from registry.datasets.models import Classification, Dataset, DatasetVersion
from registry.datasets.selectors import dataset_versions_visible_to
from registry.datasets.services import dataset_version_add
from registry.feedback.models import Feedback, FeedbackState
from registry.feedback.selectors import feedback_visible_to
from registry.storage import store

FEEDBACK_MAX = 20_000
# Limit of feedback IDs in one audit event; the lineage has all of them.
NUMBERS_RECORDED = 1_000
_CHUNK_BYTES = 64 * 1024


@dataclass(slots=True)
class FeedbackRows:
    """Rows as a file, and the lineage of the version made from it.

    A base row with the same input as a piece of feedback is left out, since people corrected it.
    """

    base: DatasetVersion | None
    feedback: Sequence[Feedback]
    row_kind: RowKind
    name: str | None = "feedback.jsonl"
    size: int | None = None
    replaced: int = field(default=0, init=False)

    def chunks(self) -> Iterator[bytes]:
        """Yield lines of the base, then of the feedback."""
        part = bytearray()
        for line in self._lines():
            part += line
            if len(part) >= _CHUNK_BYTES:
                yield bytes(part)
                part.clear()
        yield bytes(part)

    def _lines(self) -> Iterator[bytes]:
        corrected = {self.row_kind.row_input(each.row or {}): each for each in self.feedback}
        if self.base is not None:
            try:
                with store.file_open(self.base.digest) as rows:
                    for line in rows:
                        if self.row_kind.row_input(json.loads(line)) in corrected:
                            self.replaced += 1
                        else:
                            yield line
            except FileNotFoundError as error:
                raise Unavailable(
                    f"The rows of {self.base} are not in the artifact store.",
                    hint=store.RESTORE,
                ) from error
        # The newest of several pieces on one input counts.
        for each in corrected.values():
            yield json.dumps(each.row, ensure_ascii=False).encode() + b"\n"

    def attach(self, version: DatasetVersion) -> None:
        """Record the feedback of a new version.

        Raises:
            WrongState: some of it was rejected or erased meanwhile.
        """
        rows = Feedback.objects.select_for_update().filter(
            pk__in=[each.pk for each in self.feedback], state=FeedbackState.ACCEPTED
        )
        accepted = {each.pk: each.row for each in rows.order_by("pk")}
        if accepted != {each.pk: each.row for each in self.feedback}:
            raise WrongState(
                "Some of the feedback was changed meanwhile; no version was made.",
                hint="Look at the feedback again, then make the version.",
            )
        version.feedback.add(*accepted)

    def facts(self) -> dict[str, Any]:
        """Return what the audit log records about the version's origin."""
        return {
            "base": None if self.base is None else str(self.base),
            "feedback": len(self.feedback),
            "feedback_numbers": [each.pk for each in self.feedback[:NUMBERS_RECORDED]],
            "replaced_rows": self.replaced,
        }


def feedback_dataset_version(
    *,
    actor: Principal,
    dataset: Dataset,
    feedback_ids: Sequence[int],
    base: DatasetVersion | None = None,
) -> DatasetVersion:
    """Make the next version of `dataset` from accepted feedback, after the rows of `base` if given.

    Raises:
        InvalidInput: none or more than 20,000 are named, or dataset, base and feedback do not fit.
        NotFound, NotPermitted: the policy refuses.
        WrongState: some of the feedback is not accepted, or the dataset has these rows already.
        TooLarge, Unavailable: as `dataset_version_add`; or the base's rows are missing.
    """
    ids = sorted(set(feedback_ids))
    if not 1 <= len(ids) <= FEEDBACK_MAX:
        raise _invalid("feedback", f"Choose 1 to {FEEDBACK_MAX:,} pieces of accepted feedback.")
    # Of up to 20,000 pieces, only the rows are needed.
    rows = feedback_visible_to(actor).defer("input", "answer", "correction", "comment")
    feedback = list(rows.filter(pk__in=ids).order_by("pk"))
    if len(feedback) < len(ids):
        raise NotFound("The feedback does not exist, or you may not see it.")
    for each in feedback:
        if each.state != FeedbackState.ACCEPTED:
            raise WrongState(
                f"{str(each).capitalize()} is {each.get_state_display().lower()}; only accepted "
                "feedback becomes data."
            )
        if (each.department_id, each.task) != (dataset.department_id, dataset.task):
            raise _invalid(
                "dataset",
                f"{dataset.name} holds {dataset.task} data of {dataset.department.name}; "
                f"{each} is {each.task} of {each.department.name}.",
            )
    if dataset.row_kind:
        raise _invalid("dataset", f"{dataset.name} holds a kind of row that feedback cannot make.")
    if base is not None:
        _check_base(actor, dataset, base)
    file = FeedbackRows(base, feedback, get_row_kind(dataset.task, ""))
    return dataset_version_add(actor=actor, dataset=dataset, file=file, origin=file)


def _check_base(actor: Principal, dataset: Dataset, base: DatasetVersion) -> None:
    if not dataset_versions_visible_to(actor).filter(pk=base.pk).exists():
        raise NotFound(f"Dataset version {base.pk} does not exist, or you may not see it.")
    if (base.dataset.task, base.dataset.row_kind) != (dataset.task, dataset.row_kind):
        raise _invalid("base", f"{base} and {dataset.name} hold different kinds of rows.")
    if base.profile.get("media"):
        raise _invalid("base", f"The rows of {base} name media files; feedback extends text alone.")
    order = list(Classification.values)
    if order.index(base.dataset.classification) > order.index(dataset.classification):
        raise _invalid(
            "base",
            f"{base} is {base.dataset.classification}; {dataset.name} is only "
            f"{dataset.classification}, so its rows cannot go there.",
        )
    if base.dataset_id != dataset.pk and base.dataset.department_id != dataset.department_id:
        raise _invalid("base", f"{base} belongs to another department; its rows cannot be used.")


def _invalid(name: str, sentence: str) -> InvalidInput:
    return InvalidInput(sentence, fields={name: [sentence]})
