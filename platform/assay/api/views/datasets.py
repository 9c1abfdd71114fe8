"""Datasets and their versions."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from django.db.models import QuerySet
from pydantic import BeforeValidator, Field, WithJsonSchema
from rest_framework.exceptions import ParseError
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.idempotency import idempotent
from assay.api.multipart import FilledFile
from assay.api.parsers import BoundedMultiPartParser, StrictJSONParser, parse_json
from assay.api.representations.registry import DatasetAnswer, DatasetVersionAnswer
from assay.api.routes import Routes
from governance.faults import broken_rule
from governance.people.selectors import department_get
from governance.principals import Principal
from governance.schemas import Choice, Schema, instead_of
from registry.datasets.models import Dataset
from registry.datasets.schemas import NewDataset
from registry.datasets.selectors import (
    dataset_get,
    dataset_versions_visible_to,
    datasets_visible_to,
)
from registry.datasets.services import dataset_create, dataset_version_add, dataset_version_allow

TEXT_MAX = 4_000

routes = Routes("Datasets", DatasetAnswer)


@routes.list("datasets", "List datasets")
def list_datasets(actor: Principal) -> QuerySet[Dataset]:
    return datasets_visible_to(actor)


@routes.post("datasets", "Create a dataset", status=201)
def create(actor: Principal, body: NewDataset) -> Dataset:
    department = department_get(slug=body.department)
    return dataset_create(actor=actor, **{**dict(body), "department": department})


@routes.get("datasets/<slug:name>", "One dataset")
def show(actor: Principal, name: str) -> Dataset:
    return dataset_get(actor=actor, name=name)


def _texts(text: object) -> dict[str, str]:
    """Parse a text as a JSON object of at most 64 strings."""
    if not isinstance(text, str) or len(text) > TEXT_MAX:
        raise ValueError(f"not a text of at most {TEXT_MAX:,} characters")
    try:
        value = parse_json(text)
    except ParseError as error:
        raise broken_rule(str(error.detail)) from None
    if not isinstance(value, dict) or len(value) > 64:
        raise broken_rule("not a JSON object")
    if not all(isinstance(inner, str) and len(inner) <= 120 for inner in value.values()):
        raise broken_rule("every member must be a string")
    return value


TextObject = Annotated[
    dict[str, str],
    BeforeValidator(_texts),
    WithJsonSchema({"type": "string", "maxLength": TEXT_MAX}),
]


class UploadedDatasetVersion(Schema):
    """The ID of your completed upload. `columns` maps the task's row fields to the file's
    columns."""

    upload: Choice[UUID]
    columns: TextObject | None = None


class DatasetVersionBody(Schema):
    """A file in TSV, CSV, JSON lines or Parquet; for rows with images or audio, a zip archive or
    Parquet. Instead of the file, send the ID of your completed `upload`. `columns` maps the
    task's row fields to the file's columns."""

    file: FilledFile | None = None
    upload: Annotated[Choice[UUID] | None, instead_of("file")] = Field(
        default=None, validate_default=True
    )
    columns: TextObject | None = None


class DatasetVersionsView(Endpoint):
    """Versions of one dataset."""

    upload_limit = "DATASET_MAX_BYTES"
    parser_classes = (BoundedMultiPartParser, StrictJSONParser)

    def allow_body(self, name: str) -> None:
        dataset_version_allow(actor=self.actor, dataset=dataset_get(actor=self.actor, name=name))

    @operation("Datasets", "List a dataset's versions", answer=DatasetVersionAnswer, paged=True)
    def get(self, request: Request, name: str) -> Response:
        self.query_as(Schema)
        dataset = dataset_get(actor=self.actor, name=name)
        rows = dataset_versions_visible_to(self.actor).filter(dataset=dataset)
        return self.page(rows, DatasetVersionAnswer)

    @operation(
        "Datasets",
        "Add a version",
        body={
            "multipart/form-data": DatasetVersionBody,
            "application/json": UploadedDatasetVersion,
        },
        answer=DatasetVersionAnswer,
        status=201,
        judged=True,
    )
    @idempotent
    def post(self, request: Request, name: str) -> Response:
        body = self.body_as(DatasetVersionBody)
        created = dataset_version_add(
            actor=self.actor,
            dataset=dataset_get(actor=self.actor, name=name),
            file=body.file,
            upload_id=body.upload,
            columns=body.columns,
        )
        return self.answer(created, DatasetVersionAnswer, status=201)
