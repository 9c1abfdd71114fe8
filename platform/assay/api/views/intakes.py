"""Intakes: upload to quarantine, and sign-off by a second person."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.idempotency import idempotent
from assay.api.multipart import File
from assay.api.parsers import BoundedMultiPartParser, StrictJSONParser
from assay.api.representations.registry import IntakeAnswer
from assay.api.routes import Routes
from governance.bounds import NAME_MAX
from governance.principals import Principal
from governance.schemas import Choice, Id, Line, Schema, Slug, instead_of
from registry.intake.models import SOURCE_MAX, Intake
from registry.intake.schemas import IntakeFilter, IntakeSignOff
from registry.intake.selectors import intake_get, intakes_visible_to
from registry.intake.services import intake_allow, intake_sign_off
from registry.versions.models import LICENSE_MAX
from registry.versions.selectors import model_get, version_get
from workers.jobs.requests import hosted_request, intake_request
from workers.jobs.schemas import NewHosted

MAX_FILES = 64


routes = Routes("Intake", IntakeAnswer)


class _IntakeFacts(Schema):
    """Origin, license and handling of delivered files."""

    model: Slug = Field(max_length=NAME_MAX)
    source: Line = Field(max_length=SOURCE_MAX)
    license: Line = Field(max_length=LICENSE_MAX)
    keep_gguf: bool = Field(
        default=False,
        description="Keep a GGUF unchanged, for llama.cpp, instead of converting it.",
    )
    base_version: Id | None = Field(
        default=None, description="The base of an adapter. Without it, the files are a base."
    )
    digest: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Reject the files unless they become a version with this digest.",
    )


class UploadedIntake(_IntakeFacts):
    """An intake of files from your completed uploads, by their IDs."""

    uploads: list[Choice[UUID]] = Field(min_length=1, max_length=MAX_FILES)


class IntakeBody(_IntakeFacts):
    """An intake: the origin of the files, their license, and the files; or the IDs of complete
    `uploads` of yours instead of the files."""

    files: list[File] | None = Field(default=None, min_length=1, max_length=MAX_FILES)
    uploads: Annotated[list[Choice[UUID]] | None, instead_of("files")] = Field(
        default=None, min_length=1, max_length=MAX_FILES, validate_default=True
    )


class IntakesView(Endpoint):
    """Intakes."""

    upload_limit = "INTAKE_MAX_BYTES"
    parser_classes = (BoundedMultiPartParser, StrictJSONParser)

    def allow_body(self) -> None:
        intake_allow(actor=self.actor)

    @operation("Intake", "List intakes", query=IntakeFilter, answer=IntakeAnswer, paged=True)
    def get(self, request: Request) -> Response:
        query = self.query_as(IntakeFilter)
        return self.page(query.applied(intakes_visible_to(self.actor)), IntakeAnswer)

    @operation(
        "Intake",
        "Upload files to quarantine and queue their checks",
        body={"multipart/form-data": IntakeBody, "application/json": UploadedIntake},
        answer=IntakeAnswer,
        status=201,
        judged=True,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = self.body_as(IntakeBody)
        base = body.base_version
        intake, _job = intake_request(
            actor=self.actor,
            model=model_get(actor=self.actor, name=body.model),
            source=body.source,
            license=body.license,
            files=body.files or (),
            uploads=body.uploads or (),
            keep_gguf=body.keep_gguf,
            base_version=version_get(actor=self.actor, id=base) if base else None,
            expected_digest=body.digest or "",
        )
        return self.answer(intake, IntakeAnswer, status=201)


@routes.get("intakes/<id:intake_id>", "One intake and its findings")
def show(actor: Principal, intake_id: int) -> Intake:
    return intake_get(actor=actor, id=intake_id)


@routes.create(
    "hosted-models", "Describe a hosted model for intake, and queue its checks", judged=True
)
def describe(actor: Principal, body: NewHosted) -> Intake:
    intake, _job = hosted_request(
        actor=actor,
        model=model_get(actor=actor, name=body.model),
        description=body.description,
        expected_digest=body.digest or "",
    )
    return intake


@routes.post("intakes/<id:intake_id>/sign-off", "Accept or reject an intake", repeatable=True)
def sign_off(actor: Principal, intake_id: int, body: IntakeSignOff) -> Intake:
    intake_sign_off(actor=actor, intake_id=intake_id, accept=body.accept, reason=body.reason)
    return intake_get(actor=actor, id=intake_id)
