"""Datasets and their versions."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Line, ObjectText, Paragraphs, Slug, StrictSerializer
from assay.api.idempotency import idempotent
from assay.api.parsers import BoundedMultiPartParser, StrictJSONParser
from assay.api.representations.registry import DatasetAnswer, DatasetVersionAnswer
from governance.bounds import DEPARTMENT_MAX, DESCRIPTION_MAX, FILENAME_MAX, NAME_MAX, TASK_MAX
from governance.people.selectors import department_get
from registry.datasets.models import LICENSE_MAX, Classification
from registry.datasets.selectors import (
    dataset_get,
    dataset_versions_visible_to,
    datasets_visible_to,
)
from registry.datasets.services import dataset_create, dataset_version_add, dataset_version_allow


class DatasetBody(StrictSerializer):
    """A new dataset: who owns it, how sensitive it is, and its license. `row_kind` names one of
    the task's kinds of rows; its own when it is left out."""

    name = Slug(max_length=NAME_MAX)
    department = Slug(max_length=DEPARTMENT_MAX)
    task = Line(max_length=TASK_MAX)
    classification = Choice(choices=Classification.choices)
    license = Line(max_length=LICENSE_MAX)
    description = Paragraphs(max_length=DESCRIPTION_MAX, required=False, allow_blank=True)
    row_kind = Line(max_length=TASK_MAX, required=False, allow_blank=True)


class DatasetsView(Endpoint):
    """Datasets."""

    @operation("Datasets", "List datasets", answer=DatasetAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(datasets_visible_to(self.actor), DatasetAnswer)

    @operation("Datasets", "Create a dataset", body=DatasetBody, answer=DatasetAnswer, status=201)
    def post(self, request: Request) -> Response:
        given = self.body(DatasetBody)
        department = department_get(slug=given.pop("department"))
        made = dataset_create(actor=self.actor, department=department, **given)
        return self.answer(made, DatasetAnswer, status=201)


class DatasetView(Endpoint):
    """One dataset."""

    @operation("Datasets", "One dataset", answer=DatasetAnswer)
    def get(self, request: Request, name: str) -> Response:
        self.query()
        return self.answer(dataset_get(actor=self.actor, name=name), DatasetAnswer)


class DatasetVersionBody(StrictSerializer):
    """TSV, CSV, JSON lines or Parquet; where rows have images or audio, a zip archive or Parquet.
    In JSON, the id of a complete `upload` of the caller's takes the place of the file. `columns`
    maps the task's row fields to the file's columns."""

    file = serializers.FileField(max_length=FILENAME_MAX, required=False)
    upload = serializers.UUIDField(required=False)
    columns = ObjectText(max_length=4000, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("file" in attrs) == ("upload" in attrs):
            raise serializers.ValidationError({"file": ["Give a file, or an upload by its id."]})
        return attrs


class DatasetVersionsView(Endpoint):
    """Versions of one dataset."""

    upload_limit = "DATASET_MAX_BYTES"
    parser_classes = (BoundedMultiPartParser, StrictJSONParser)

    def allow_body(self, name: str) -> None:
        dataset_version_allow(actor=self.actor, dataset=dataset_get(actor=self.actor, name=name))

    @operation("Datasets", "List a dataset's versions", answer=DatasetVersionAnswer, paged=True)
    def get(self, request: Request, name: str) -> Response:
        self.query()
        dataset = dataset_get(actor=self.actor, name=name)
        rows = dataset_versions_visible_to(self.actor).filter(dataset=dataset)
        return self.page(rows, DatasetVersionAnswer)

    @operation(
        "Datasets",
        "Add a version",
        body={"multipart/form-data": DatasetVersionBody, "application/json": DatasetVersionBody},
        answer=DatasetVersionAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request, name: str) -> Response:
        given = self.body(DatasetVersionBody)
        made = dataset_version_add(
            actor=self.actor,
            dataset=dataset_get(actor=self.actor, name=name),
            file=given.get("file"),
            upload_id=given.get("upload"),
            columns=given.get("columns"),
        )
        return self.answer(made, DatasetVersionAnswer, status=201)
