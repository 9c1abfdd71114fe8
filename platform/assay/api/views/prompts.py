"""Prompt versions."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Identifier, Object, Paragraphs, Slug, StrictSerializer
from assay.api.idempotency import idempotent
from assay.api.representations.workers import JobAnswer
from governance.bounds import NAME_MAX
from registry.versions.selectors import model_get, version_get
from workers.jobs.prompts import prompt_version_create


class PromptVersionBody(StrictSerializer):
    """A prompt on a base version: `system`, `template`, `variables`, `examples` and `decoding` in
    `document`."""

    model = Slug(max_length=NAME_MAX)
    base_version = Identifier()
    document = Object()
    note = Paragraphs(max_length=2000, required=False, allow_blank=True)


class PromptVersionsView(Endpoint):
    """Prompts on base versions."""

    @operation(
        "Models",
        "Create a prompt version; the job registers it",
        body=PromptVersionBody,
        answer=JobAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.body(PromptVersionBody)
        job = prompt_version_create(
            actor=self.actor,
            model=model_get(actor=self.actor, name=given["model"]),
            base_version=version_get(actor=self.actor, id=given["base_version"]),
            document=given["document"],
            note=given.get("note", ""),
        )
        return self.answer(job, JobAnswer, status=201)
