"""The code that came with a model, from the worker's findings to the digest that is voted on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from governance.errors import InvalidInput
from governance.people.models import Department, Person
from governance.principals import Principal
from registry.canonical import json_digest
from registry.intake.services import intake_checked
from registry.releases.models import Release
from registry.versions.model_code import MAX_CODE, checked_code, known_code
from tests.unit.audit_support import recorded
from tests.unit.registry.objects import delivery, model, stored
from tests.unit.registry.office import Office
from tests.unit.registry.test_intake import submit

SMOLLM2 = "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788"


def code(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "chat template",
        "path": "chat_template.jinja",
        "sha256": "ab" * 32,
        "characters": 11,
        "shown": "{{ 1 + 1 }}",
        **changes,
    }


def test_known_code_has_its_name_from_the_list_and_never_from_a_worker() -> None:
    unknown, known = checked_code([code(known="SmolLM2 Instruct"), code(sha256=SMOLLM2)])
    assert (unknown["known"], known["known"]) == ("", "SmolLM2 Instruct")
    assert all(len(digest) == 64 and name for digest, name in known_code().items())


@pytest.mark.parametrize(
    "found",
    [
        [code(sha256="AB" * 32)],
        [code(shown="x" * 20_000)],
        [code(characters="11")],
        [code(extra=1)],
        [code(shown="a\0b")],
        [code(path="\ud800")],
        [{}],
        [code()] * (MAX_CODE + 1),
    ],
    ids=["digest", "long", "type", "extra", "nul", "surrogate", "empty", "many"],
)
def test_findings_out_of_form_are_refused(found: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidInput):
        checked_code(found)


@pytest.mark.django_db
def test_an_intake_keeps_the_code_and_its_event_names_the_digests(
    actor: Callable[..., Principal], department: Callable[[str], Department]
) -> None:
    devi = actor("Devi", "developer@clinical")
    of = model(Person.objects.get(name="Devi"), department("clinical"), "smollm2", "embeddings")
    intake = submit(devi, of, delivery())
    intake_checked(
        intake_id=intake.pk,
        manifest=stored({"a.json": b"{}"}),
        findings=[],
        code=[code()],
        job_id=uuid4(),
    )
    intake.refresh_from_db()
    assert intake.code == [{**code(), "known": ""}]
    event = json.loads(bytes(recorded(action="intake:check").canonical))
    assert event["data"]["code"] == ["ab" * 32]


@pytest.mark.django_db
def test_code_of_the_version_and_its_bases_is_under_the_digest_that_is_voted_on(
    policy: None, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    office = Office(person, department)
    office.base.code = checked_code([code()])
    office.base.save()
    release = Release.objects.get(pk=office.submit().pk)
    assert release.dossier["code"] == [{"model": "minilm", "version": 1, **office.base.code[0]}]
    assert release.dossier_digest == json_digest(release.dossier)
