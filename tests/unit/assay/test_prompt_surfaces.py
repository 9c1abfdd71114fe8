"""Prompt versions on screens, in the API and on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client

from assay.portal.forms.prompts import document_of, initial_of
from registry.catalog.prompt import PromptDocument
from registry.releases.exports.prompts import prompt_blocks
from registry.releases.exports.sections import dossier_sections
from registry.versions.models import ModelVersion
from tests.approvals import software_of
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import queries, signed_in
from workers.jobs.models import Job

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

FORM = "/models/docstring-writer/prompts/new"
DOCUMENT: dict[str, Any] = {
    "system": "You write for {{team}} & others.",
    "template": "Say: {{input}}",
    "variables": [{"name": "team", "description": "Who reads it", "max_length": 30}],
    "examples": [{"user": "Hi", "assistant": "Hello"}],
    "decoding": {"temperature": 0.25, "stop": ["\n"], "fixed": ["temperature"]},
}


def filled(company: Company, **changes: Any) -> dict[str, Any]:
    return {
        "base_version": company.base.pk,
        "system": DOCUMENT["system"],
        "template": DOCUMENT["template"],
        "v_team_description": "Who reads it",
        "v_team_max_length": "30",
        "example_user": ["Hi", ""],
        "example_assistant": ["Hello", ""],
        "temperature": "0.25",
        "stop": "\\n",
        "fixed": ["temperature"],
        **changes,
    }


def version_of(job: Job, number: int, **changes: Any) -> ModelVersion:
    assert job.result is not None
    return ModelVersion.objects.create(
        **{
            "model_id": job.spec["model"],
            "number": number,
            "kind": "prompt",
            "base_id": job.spec["base"],
            "digest": job.spec["digest"],
            "manifest": job.result["manifest"],
            "size_bytes": 400,
            "parameters": job.result["parameters"],
            "license": "Apache-2.0",
            "created_by": job.created_by,
            **changes,
        }
    )


def created(client: Client, company: Company, **changes: Any) -> Job:
    answer = client.post(FORM, filled(company, **changes))
    assert answer.status_code == 302, answer.content.decode()
    return Job.objects.get(kind="prompt", pk=answer["Location"].rstrip("/").split("/")[-1])


def test_the_form_makes_the_same_document_as_the_api(company: Company) -> None:
    job = created(signed_in(company.devi), company)
    assert job.result is not None
    shown = job.result["parameters"]
    assert shown["system"] == DOCUMENT["system"]
    assert shown["variables"] == [
        {"name": "team", "description": "Who reads it", "default": None, "max_length": 30}
    ]
    assert shown["examples"] == DOCUMENT["examples"]
    assert shown["decoding"]["stop"] == ["\n"]
    answer = Api(company.devi).post(
        "prompt-versions",
        {"model": "docstring-writer", "base_version": company.base.pk, "document": DOCUMENT},
    )
    assert answer.status_code == 201, answer.body
    assert (answer.body["kind"], answer.body["state"]) == ("prompt", "finishing")
    assert Job.objects.get(pk=answer.body["id"]).spec["digest"] == job.spec["digest"]


def test_stop_texts_survive_the_form() -> None:
    stops = ["\n", "\\n", "a\\", "\\\n", "\\d"]
    document = PromptDocument.read({"decoding": {"stop": stops[1:]}}).model_dump(mode="json")
    for given in (stops[:1], stops[1:]):
        document["decoding"]["stop"] = given
        shown = initial_of(ModelVersion(parameters=document))
        assert document_of(shown, QueryDict())["decoding"]["stop"] == given


def test_what_is_wrong_is_told_beside_what_was_typed(company: Company) -> None:
    client = signed_in(company.devi)
    answer = client.post(FORM, filled(company, template="No place for it", v_team_default="Care"))
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "must occur in the template once" in page
    assert "No place for it" in page
    assert 'value="Care"' in page
    assert not Job.objects.filter(kind="prompt").exists()


def test_a_version_shows_its_prompt_and_starts_the_next_one(company: Company) -> None:
    client = signed_in(company.devi)
    version = version_of(created(client, company), 3)
    page = client.get(f"/versions/{version.pk}").content.decode()
    assert "You write for {{team}} &amp; others." in page
    assert "cannot change it" in page
    again = client.get(f"{FORM}?from={version.pk}").content.decode()
    assert "You write for {{team}} &amp; others." in again
    assert 'value="Who reads it"' in again
    assert "\\n</textarea>" in again
    assert client.get(f"{FORM}?from={company.base.pk}").status_code == 404
    assert client.get(f"{FORM}?from=x").status_code == 404


def test_two_prompts_are_compared_part_by_part(company: Company) -> None:
    client = signed_in(company.devi)
    first = version_of(created(client, company), 3)
    second = version_of(created(client, company, temperature="0.5", template="Ask: {{input}}"), 4)
    page = client.get("/models/docstring-writer/compare", {"new": 4, "old": 3}).content.decode()
    assert "2 parts changed" in " ".join(page.split())
    assert "-Say: {{input}}" in page
    assert "+Ask: {{input}}" in page
    found = Api(company.devi).get(f"versions/{second.pk}/comparison?against={first.pk}").body
    changed = [part["title"] for part in found["prompt"]["sections"]]
    assert changed == ["Template of each message", "Decoding"]
    assert "system" not in json.dumps(found["settings"])


def test_a_dossier_shows_the_whole_prompt_before_anything_else_of_the_model() -> None:
    parameters = {**DOCUMENT, "variables": [{**DOCUMENT["variables"][0], "default": None}]}
    dossier = {"training": {"parameters": parameters}, "software": software_of("text-generation")}
    prompt = {**dossier, "identity": {"kind": "prompt"}}
    sections = {section.code: section for section in dossier_sections(prompt)}
    assert sections["prompt"].blocks == tuple(prompt_blocks(parameters))
    texts = [block.text for block in sections["prompt"].blocks if block.verbatim]
    assert texts == ["You write for {{team}} & others.", "Say: {{input}}", "Hi", "Hello"]
    base = {**dossier, "identity": {"kind": "base"}}
    assert "prompt" not in {each.code for each in dossier_sections(base)}


def test_the_pages_take_a_fixed_number_of_queries(company: Company) -> None:
    client = signed_in(company.devi)
    version = version_of(created(client, company), 3)
    client.get(FORM)
    assert queries(client, FORM) == queries(client, f"{FORM}?from={version.pk}") - 1


def test_another_departments_model_and_base_do_not_exist(company: Company) -> None:
    stranger = signed_in(company.clara)
    assert stranger.get(FORM).status_code == 404
    assert stranger.post(FORM, filled(company)).status_code == 404
    writer = ModelVersion.objects.filter(model__name="docstring-writer").first()
    assert writer is not None
    body = {"model": "review-sentiment", "base_version": writer.pk, "document": DOCUMENT}
    problem_of(Api(company.clara).post("prompt-versions", body), 404)
