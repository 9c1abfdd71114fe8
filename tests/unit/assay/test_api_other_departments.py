"""Another department's objects do not exist: 404, nothing changed, and the attempt on record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.core.files.uploadedfile import SimpleUploadedFile
from django.forms.models import model_to_dict
from django.urls import URLPattern

from assay.api.urls import urlpatterns
from governance.audit.models import AuditEvent
from governance.people.models import Person, RoleAssignment
from registry.versions.models import Model
from tests.unit.assay import portal_data
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company

pytestmark = [pytest.mark.usefixtures("redis"), pytest.mark.sweep]

ROLES = ["lead", "developer", "viewer"]
RISK = {"intended_purpose": "x"}
RELEASE = {
    "environment": "production",
    "deployment_name": "mine",
    "departments": ["finance"],
    "purpose": "To have it.",
    "risk_answers": RISK,
}
# Each address that names an object, with an object of engineering's.
READS = [
    "departments/engineering",
    "people/{enzo.pk}",
    "models/docstring-writer",
    "models/docstring-writer/versions",
    "versions/{second.pk}",
    "intakes/{signable.pk}",
    "datasets/docstrings-train",
    "datasets/docstrings-train/versions",
    "evaluations/{evaluation.pk}",
    "jobs/{running.pk}",
    "jobs/{running.pk}/events",
    "releases/{waiting.pk}",
    "releases/{waiting.pk}/dossier",
    "releases/{waiting.pk}/decisions",
    "deployments/{deployment.pk}",
    "keys/{key.pk}",
]
ACTIONS: list[tuple[str, dict[str, Any]]] = [
    ("people/{enzo.pk}/roles", {"role": "admin"}),
    ("people/{enzo.pk}/deactivate", {"reason": "A rival."}),
    ("people/{enzo.pk}/reactivate", {}),
    ("keys", {"department": "engineering", "name": "mine"}),
    ("keys/{key.pk}/revoke", {}),
    ("keys/{key.pk}/rotate", {}),
    ("quotas", {"kind": "tokens_per_day", "limit": 1, "department": "engineering"}),
    ("quotas", {"kind": "tokens_per_day", "limit": None, "key": "{key.pk}"}),
    ("models", {"name": "mine", "department": "engineering", "task": "embeddings"}),
    ("intakes/{signable.pk}/sign-off", {"accept": True, "reason": "Fine."}),
    (
        "datasets",
        {
            "name": "mine",
            "department": "engineering",
            "task": "text-generation",
            "classification": "public",
            "licence": "CC0",
        },
    ),
    (
        "gates",
        {
            "model": "docstring-writer",
            "dataset": "docstrings-test",
            "metric": "perplexity",
            "comparator": "<=",
            "threshold": 1e9,
        },
    ),
    (
        "gates",
        {
            "model": "theirs",
            "dataset": "docstrings-test",
            "metric": "perplexity",
            "comparator": "<=",
            "threshold": 1e9,
        },
    ),
    (
        "fine-tunes",
        {
            "model": "docstring-writer",
            "base_version": "{base.pk}",
            "method": "lora",
            "dataset_version": "{train.pk}",
        },
    ),
    (
        "fine-tunes",
        {
            "model": "theirs",
            "base_version": "{base.pk}",
            "method": "lora",
            "dataset_version": "{train.pk}",
        },
    ),
    ("evaluations", {"version": "{second.pk}", "dataset_version": "{held_out.pk}"}),
    ("jobs/{running.pk}/cancel", {}),
    ("releases", {"version": "{second.pk}", **RELEASE}),
    (
        "releases/{waiting.pk}/decisions",
        {"verdict": "comment", "reason": "Hm.", "digest": "{waiting.dossier_digest}"},
    ),
    (
        "releases/{waiting.pk}/decisions",
        {"verdict": "approve", "reason": "Fine.", "digest": "{waiting.dossier_digest}"},
    ),
    ("releases/{waiting.pk}/answers", {"message": "There."}),
    ("releases/{waiting.pk}/checklist/oversight", {"note": "Seen."}),
    ("releases/{waiting.pk}/withdraw", {"reason": "No more."}),
    ("deployments", {"release": "{live.pk}"}),
    ("deployments/{deployment.pk}/stop", {"reason": "No more."}),
]
UPLOADS: list[tuple[str, dict[str, Any]]] = [
    ("intakes", {"model": "docstring-writer", "source": "s", "licence": "l", "files": b"{}"}),
    ("datasets/docstrings-train/versions", {"file": b'{"messages": []}\n'}),
]
DELETIONS = ["people/{enzo.pk}/roles/{role.pk}", "group-mappings/1"]
# What changes of itself when somebody calls or is refused.
APART = {"AuditEvent", "AuditCheckpoint", "Session", "IdempotencyRecord"}


@pytest.fixture
def company(policy: object) -> Company:
    made = portal_data.tell_story()
    made.things["evaluation"] = made.second.evaluations.get()
    made.things["role"] = RoleAssignment.objects.get(person=made.enzo)
    Model.objects.create(
        name="theirs",
        department=made.departments["finance"],
        task="text-generation",
        created_by=made.enzo,
    )
    return made


@pytest.fixture(params=ROLES)
def outsider(
    request: pytest.FixtureRequest, company: Company, person: Callable[..., Person]
) -> Api:
    api = Api(person("Fay Outside", f"{request.param}@finance"))
    api.get("me")  # notes when the token was last used, which is then left alone for a while
    return api


def filled(value: Any, company: Company) -> Any:
    """`value` with its `{names}` replaced by the company's things; a whole number becomes one."""
    if isinstance(value, dict):
        return {name: filled(inner, company) for name, inner in value.items()}
    if not isinstance(value, str) or "{" not in value:
        return value
    names = {**company.people, **company.things}
    text = value.format_map(names)
    return int(text) if text.isdigit() and len(text) < 19 else text


def everything() -> dict[str, list[dict[str, Any]]]:
    """Every row of every table that nobody should have changed."""
    return {
        model.__name__: [model_to_dict(row) for row in model._default_manager.order_by("pk")]
        for model in apps.get_models()
        if model.__name__ not in APART
    }


def denied_after(last: int) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(pk__gt=last, outcome="denied"))


def newest_event() -> int:
    return AuditEvent.objects.order_by("-pk").values_list("pk", flat=True)[0]


def refused(call: Callable[[], Any]) -> None:
    """`call` is answered by 404, changes nothing and leaves one denied event by the caller."""
    before, last = everything(), newest_event()
    problem_of(call(), 404)
    assert everything() == before
    (event,) = denied_after(last)
    assert (event.actor_name, event.outcome) == ("Fay Outside", "denied")


@pytest.mark.parametrize("path", READS)
def test_what_another_department_has_cannot_be_read(
    company: Company, outsider: Api, path: str
) -> None:
    before = everything()
    problem_of(outsider.get(filled(path, company)), 404)
    assert everything() == before


@pytest.mark.parametrize(("path", "body"), ACTIONS, ids=lambda value: str(value)[:50])
def test_what_another_department_has_cannot_be_acted_on(
    company: Company, outsider: Api, path: str, body: dict[str, Any]
) -> None:
    refused(lambda: outsider.post(filled(path, company), filled(body, company)))


@pytest.mark.parametrize(("path", "fields"), UPLOADS)
def test_nothing_can_be_delivered_into_another_department(
    company: Company, outsider: Api, path: str, fields: dict[str, Any]
) -> None:
    files = {
        name: SimpleUploadedFile("config.json", value) if isinstance(value, bytes) else value
        for name, value in fields.items()
    }
    refused(lambda: outsider.upload(path, files))


@pytest.mark.parametrize("path", DELETIONS)
def test_roles_in_another_department_cannot_be_taken_away(
    company: Company, outsider: Api, path: str
) -> None:
    refused(lambda: outsider.delete(filled(path, company)))


def test_every_address_that_names_an_object_is_walked() -> None:
    written = [*READS, *DELETIONS, *(path for path, _ in (*ACTIONS, *UPLOADS))]
    unwalked = [
        str(each.pattern)
        for each in urlpatterns
        if isinstance(each, URLPattern)
        and "<" in str(each.pattern)
        and not any(_same_shape(str(each.pattern), path) for path in written)
    ]
    assert unwalked == []


def _same_shape(pattern: str, path: str) -> bool:
    left, right = pattern.split("/"), path.split("/")
    return len(left) == len(right) and all(
        a.startswith("<") or a == b for a, b in zip(left, right, strict=True)
    )
