"""The first rows of a dataset version, for a person to look at: bounded, and masked by default.

Columns in which the checks found signs of personal data are masked as a whole, since what is
personal by its meaning stands next to what a pattern finds. Without a record of that search, every
column is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from governance.audit.services import audit_record
from governance.errors import Unavailable
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from registry import store
from registry.catalog import get_task
from registry.datasets.models import DatasetVersion
from registry.datasets.parsing import MAX_ROW_BYTES
from registry.datasets.selectors import dataset_version_get
from registry.resources import acting_person, dataset_resource, dataset_version_subject

ROWS = 20
# Read of the file at most, and shown of one field.
READ_BYTES = 2 * MAX_ROW_BYTES
FIELD_CHARACTERS = 500
# Beyond ASCII everything counts: vowel signs of many scripts and emoji are no word characters.
_SIGN = re.compile(r"\w|[^\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class Text:
    """A field, or one message of a conversation (`role`). `left_out` characters are not shown."""

    text: str
    role: str = ""
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class RowsPreview:
    """`rows` hold the texts of each cell, in the order of `columns`; those of `masked` columns have
    no readable sign."""

    columns: list[str]
    rows: list[list[list[Text]]]
    total: int
    masked: list[str]


def rows_preview(version: DatasetVersion) -> RowsPreview:
    """Return the first rows of a version that the caller may see, masked where it must be.

    Raises:
        Unavailable: the store does not hold its rows.
    """
    return _preview(version, masked=_masked_columns(version))


@transaction.atomic
def dataset_unmask(*, actor: Principal, id: int) -> RowsPreview:  # noqa: A002
    """Return the first rows of a version with nothing masked, which is an event.

    Raises:
        NotFound: there is none that the actor may see.
        NotPermitted: the policy denies it, or the actor is no person.
        Unavailable: the store does not hold its rows.
    """
    version = dataset_version_get(actor=actor, id=id)
    decision = authorize(
        actor=actor, action=Action.DATASET_UNMASK, resource=dataset_resource(version.dataset)
    )
    acting_person(actor)
    preview = _preview(version, masked=[])
    audit_record(
        actor=actor,
        action=Action.DATASET_UNMASK,
        subject=dataset_version_subject(version),
        department=version.dataset.department.slug,
        data={"digest": version.digest, "rows": len(preview.rows)},
        decision=decision,
    )
    return preview


def _columns(version: DatasetVersion) -> list[str]:
    return list(get_task(version.dataset.task).row.model_fields)


def _masked_columns(version: DatasetVersion) -> list[str]:
    personal = version.profile.get("personal")
    if personal is None:
        return _columns(version)
    # A message's text is recorded as `messages of the user`.
    found = {name.partition(" of the ")[0] for name in personal["columns"]}
    return [column for column in _columns(version) if column in found]


def _preview(version: DatasetVersion, *, masked: list[str]) -> RowsPreview:
    columns = _columns(version)
    rows = [
        [_texts(row.get(column), hide=column in masked) for column in columns]
        for row in _first_rows(version)
    ]
    return RowsPreview(columns, rows, version.rows, masked)


def _first_rows(version: DatasetVersion) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    read = 0
    try:
        with store.dataset_file(version.digest).open("rb") as lines:
            while len(rows) < ROWS and read < READ_BYTES and (line := lines.readline(READ_BYTES)):
                read += len(line)
                rows.append(json.loads(line))
    except FileNotFoundError as error:
        raise Unavailable(
            f"The rows of {version} are not in the artefact store.",
            hint="Restore ASSAY_DATA_DIR/artifacts/datasets, then try again.",
        ) from error
    return rows


def _texts(value: Any, *, hide: bool) -> list[Text]:
    if isinstance(value, list):
        return [_text(str(each["content"]), hide, str(each["role"])) for each in value]
    return [_text("" if value is None else str(value), hide)]


def _text(text: str, hide: bool, role: str = "") -> Text:
    shown = text[:FIELD_CHARACTERS]
    left_out = len(text) - len(shown)
    return Text(_SIGN.sub("•", shown) if hide else shown, role, left_out)
