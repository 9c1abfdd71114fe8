"""How bytes enter: deliveries into quarantine, and the second person's sign-off."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import (
    Choice,
    FormIdentifier,
    FormTruth,
    Line,
    Paragraphs,
    Several,
    Slug,
    StrictSerializer,
    Truth,
)
from assay.api.idempotency import idempotent
from assay.api.parsers import BoundedMultiPartParser, StrictJSONParser
from assay.api.representations.registry import IntakeAnswer
from governance.bounds import FILENAME_MAX, NAME_MAX
from registry.intake.models import REASON_MAX, SOURCE_MAX, IntakeState
from registry.intake.selectors import intake_get, intakes_visible_to
from registry.intake.services import intake_allow, intake_sign_off
from registry.versions.models import LICENSE_MAX
from registry.versions.selectors import model_get, version_get
from workers.jobs.requests import intake_request

MAX_FILES = 64


class IntakeQuery(StrictSerializer):
    """Filters of the list."""

    state = Choice(choices=IntakeState.choices, required=False)
    model = Line(max_length=NAME_MAX, required=False)


class IntakeBody(StrictSerializer):
    """A delivery: where the files came from, their license, and the files; or, in JSON, the
    ids of complete `uploads` of the caller's in place of files."""

    model = Slug(max_length=NAME_MAX)
    source = Line(max_length=SOURCE_MAX)  # type: ignore[assignment]  # DRF takes it out of the class
    license = Line(max_length=LICENSE_MAX)
    files = Several(
        child=serializers.FileField(max_length=FILENAME_MAX, allow_empty_file=True),
        min_length=1,
        max_length=MAX_FILES,
        required=False,
    )
    uploads = Several(
        child=serializers.UUIDField(), min_length=1, max_length=MAX_FILES, required=False
    )

    keep_gguf = FormTruth(
        required=False,
        help_text="Keep a GGUF as delivered, for llama.cpp, in place of converting it.",
    )

    base_version = FormIdentifier(
        required=False, help_text="The base of an adapter. Without it, the files are a base."
    )
    digest = serializers.RegexField(
        r"^[0-9a-f]{64}$",
        required=False,
        help_text="Reject the files unless they become a version of this digest.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("files" in attrs) == ("uploads" in attrs):
            raise serializers.ValidationError({"files": ["Give files, or uploads by their ids."]})
        return attrs


class IntakesView(Endpoint):
    """Deliveries."""

    upload_limit = "INTAKE_MAX_BYTES"
    parser_classes = (BoundedMultiPartParser, StrictJSONParser)

    def allow_body(self) -> None:
        intake_allow(actor=self.actor)

    @operation("Intake", "List intakes", query=IntakeQuery, answer=IntakeAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(IntakeQuery)
        rows = intakes_visible_to(self.actor)
        if "state" in given:
            rows = rows.filter(state=given["state"])
        if "model" in given:
            rows = rows.filter(model__name=given["model"])
        return self.page(rows, IntakeAnswer)

    @operation(
        "Intake",
        "Deliver files into quarantine and queue their checks",
        body={"multipart/form-data": IntakeBody, "application/json": IntakeBody},
        answer=IntakeAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        given: dict[str, Any] = self.body(IntakeBody)
        intake, _job = intake_request(
            actor=self.actor,
            model=model_get(actor=self.actor, name=given["model"]),
            source=given["source"],
            license=given["license"],
            files=given.get("files", ()),
            uploads=given.get("uploads", ()),
            keep_gguf=given.get("keep_gguf", False),
            base_version=version_get(actor=self.actor, id=given["base_version"])
            if "base_version" in given
            else None,
            expected_digest=given.get("digest", ""),
        )
        return self.answer(intake, IntakeAnswer, status=201)


class IntakeView(Endpoint):
    """One delivery."""

    @operation("Intake", "One intake and its findings", answer=IntakeAnswer)
    def get(self, request: Request, intake_id: int) -> Response:
        self.query()
        return self.answer(intake_get(actor=self.actor, id=intake_id), IntakeAnswer)


class SignOffBody(StrictSerializer):
    """The second person's word."""

    accept = Truth()
    reason = Paragraphs(max_length=REASON_MAX)


class IntakeSignOffView(Endpoint):
    """A second person makes it a trusted version, or rejects it."""

    @operation("Intake", "Accept or reject an intake", body=SignOffBody, answer=IntakeAnswer)
    @idempotent
    def post(self, request: Request, intake_id: int) -> Response:
        given = self.body(SignOffBody)
        intake_sign_off(actor=self.actor, intake_id=intake_id, **given)
        return self.answer(intake_get(actor=self.actor, id=intake_id), IntakeAnswer)
