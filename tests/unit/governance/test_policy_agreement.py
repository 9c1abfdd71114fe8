"""A list shows exactly what single decisions would let through."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Model as DjangoModel
from django.db.models import QuerySet
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from governance.keys.models import ApiKey
from governance.keys.services import key_resource
from governance.people.models import Department, Person
from governance.people.selectors import (
    department_resource,
    person_resource,
    principal_for_person,
)
from governance.permissions import VIEW_ACTIONS, Action
from governance.policy.context import with_base
from governance.policy.engine import PolicySnapshot, Resource, decide
from governance.policy.models import PolicyVersion
from governance.policy.rules import (
    WITH_LIST,
    WITH_NETWORKS,
    WITHOUT_VALUE,
    Condition,
    Operator,
)
from governance.policy.selectors import COLUMNS, visible_to
from governance.policy.services import active_policy
from governance.principals import ANONYMOUS, Principal, PrincipalKind, service_principal
from governance.quotas.models import QuotaLimit
from governance.reviews.models import Review
from governance.reviews.selectors import review_resource
from governance.usage.models import UsageRecord
from registry.datasets.models import Dataset, DatasetVersion
from registry.releases.models import Release
from registry.resources import dataset_resource, model_resource, release_resource
from registry.versions.models import Model, ModelVersion
from tests.thoroughness import examples
from tests.unit.policy_support import install_rules
from workers.deployments.models import Deployment
from workers.deployments.resources import deployment_resource
from workers.jobs.models import Job

SLUGS = ("clinical", "engineering", "finance")
ROLES = (
    "admin",
    "operator",
    "auditor",
    "reviewer:compliance",
    "reviewer:security",
    "lead@clinical",
    "developer@engineering",
    "viewer@finance",
)


@dataclass(frozen=True)
class World:
    """Actors of every kind, and for each resource type its rows with what the policy sees."""

    actors: tuple[Principal, ...]
    rows: dict[str, tuple[QuerySet[Any], dict[Any, Resource]]]


def _rows(found: type[DjangoModel], view: Callable[[Any], Resource]) -> tuple[Any, Any]:
    rows = found._default_manager.all()
    return rows, {row.pk: view(row) for row in rows}


def _owned(kind: str) -> Callable[[Any], Resource]:
    return lambda row: Resource(kind, id=str(row.pk), department=row.department.slug)


def _version(row: ModelVersion) -> Resource:
    return Resource(
        "version",
        id=str(row.pk),
        department=row.model.department.slug,
        attributes={"shared": row.model.shared},
    )


def _registry(owner: Person, departments: list[Department]) -> None:
    """Models shared and not; releases for none, one and two departments, in both visibilities."""
    digest = "d" * 64
    for department, shared in itertools.product(departments, (True, False)):
        name = f"{department.slug}-{shared}".lower()
        model = Model.objects.create(
            name=name, department=department, task="embeddings", shared=shared, created_by=owner
        )
        version = ModelVersion.objects.create(
            model=model,
            number=1,
            kind="base",
            digest=digest,
            manifest={},
            size_bytes=1,
            dataset_version=_data(owner, department) if shared else None,
            created_by=owner,
        )
        for names, visibility in itertools.product(
            ([], departments[:1], departments[1:]), ("department", "organization")
        ):
            release = Release.objects.create(
                version=version,
                department=department,
                environment="staging",
                deployment_name=name,
                visibility=visibility,
                purpose="p",
                dossier={},
                dossier_digest=digest,
                submitted_by=owner,
                state="rejected",
            )
            release.departments.set(names)
            Deployment.objects.create(
                name=name,
                release=release,
                department=department,
                state="stopped",
                created_by=owner,
            )


def _data(owner: Person, department: Department) -> DatasetVersion:
    """Data of a department, of another classification in each."""
    dataset = Dataset.objects.create(
        name=f"data-{department.slug}",
        department=department,
        task="embeddings",
        classification={"clinical": "restricted", "finance": "confidential"}.get(
            department.slug, "internal"
        ),
        license="MIT",
        created_by=owner,
    )
    return DatasetVersion.objects.create(
        dataset=dataset,
        number=1,
        digest="d" * 64,
        rows=1,
        size_bytes=1,
        schema={},
        created_by=owner,
    )


def _owned_rows(owner: Person, department: Department) -> None:
    now = timezone.now()
    Dataset.objects.create(
        name=department.slug,
        department=department,
        task="embeddings",
        classification="internal",
        license="MIT",
        created_by=owner,
    )
    Job.objects.create(kind="evaluate", department=department, title="t", spec={}, created_by=owner)
    Review.objects.create(
        subject_type="thing",
        subject_id=department.slug,
        subject_name="thing",
        department=department,
        digest="d" * 64,
        required_approvals={"compliance": 1},
        policy_version=1,
        opened_by=owner,
        due_at=now,
    )
    UsageRecord.objects.create(
        request_id=uuid.uuid4().hex,
        occurred_at=now,
        department=department.slug,
        key_public_id="k",
        deployment="d",
        version_digest="d",
        endpoint="e",
        outcome="ok",
    )
    for public_id, ownership in (
        (f"d-{department.slug}"[:16], {"department": department}),
        (f"p-{department.slug}"[:16], {"person": owner}),
    ):
        key = ApiKey.objects.create(
            public_id=public_id,
            secret_hmac=b"",
            pepper_version=1,
            name="k",
            expires_at=now + timedelta(days=1),
            **ownership,
        )
        if "department" in ownership:
            QuotaLimit.objects.create(api_key=key, kind="tokens_per_day", limit=1)
    QuotaLimit.objects.create(department=department, kind="tokens_per_day", limit=1)


def _quota(row: QuotaLimit) -> Resource:
    owner = row.department or (row.api_key and row.api_key.department)
    return Resource("quota", id=str(row.pk), department=owner.slug if owner else None)


def _key_actor(slug: str) -> Principal:
    return Principal(
        kind=PrincipalKind.KEY,
        id=slug,
        name=slug,
        department=slug,
        scopes=frozenset({"deployment:invoke"}),
        key_id=1,
    )


@pytest.fixture
def world(
    policy: PolicyVersion,
    person: Callable[..., Person],
    department: Callable[[str], Department],
) -> World:
    people = [
        person(f"P{n} {role}".translate({58: 45, 64: 45}), role) for n, role in enumerate(ROLES)
    ]
    people.append(person("Several", "lead@clinical", "viewer@finance", "reviewer:privacy"))
    people.append(person("Nobody"))
    departments = [department(slug) for slug in SLUGS]
    _registry(people[5], departments)
    for owner, owned in zip(people[5:8], departments, strict=True):
        _owned_rows(owner, owned)
    return World(
        actors=(
            *(principal_for_person(p) for p in people),
            principal_for_person(people[5], scopes=frozenset({"model:create", "key:view"})),
            *(_key_actor(slug) for slug in SLUGS),
            service_principal("controller"),
            ANONYMOUS,
        ),
        rows={
            "dataset": _rows(Dataset, dataset_resource),
            "department": _rows(Department, department_resource),
            "deployment": _rows(Deployment, deployment_resource),
            "job": _rows(Job, _owned("job")),
            "key": _rows(ApiKey, key_resource),
            "model": _rows(Model, model_resource),
            "person": _rows(Person, person_resource),
            "quota": _rows(QuotaLimit, _quota),
            "release": _rows(Release, release_resource),
            "review": _rows(Review, review_resource),
            "usage": _rows(
                UsageRecord,
                lambda row: Resource("usage", id=str(row.pk), department=row.department),
            ),
            "version": _rows(ModelVersion, _version),
        },
    )


def _compare(
    world: World,
    snapshot: PolicySnapshot,
    resource_type: str,
    action: Action,
    actor: Principal,
    context: dict[str, Any] | None = None,
) -> None:
    rows, resources = world.rows[resource_type]
    rows = rows.filter(pk__in=resources)
    visible = visible_to(actor, action, rows, resource_type=resource_type, context=context)
    listed = list(visible.values_list("pk", flat=True))
    now = with_base(context)
    decided = {
        pk
        for pk, resource in resources.items()
        if decide(snapshot, actor, action, resource, now).allowed
    }
    assert len(listed) == len(set(listed)), f"{resource_type}: a row came twice"
    assert set(listed) == decided, f"{resource_type} for {actor.name}"


def test_the_default_policy_lists_what_it_decides_for_everybody(world: World) -> None:
    snapshot = active_policy()
    for resource_type, actor in itertools.product(world.rows, world.actors):
        _compare(world, snapshot, resource_type, VIEW_ACTIONS[resource_type], actor)


def test_every_listed_type_has_columns_for_its_attributes(world: World) -> None:
    for resource_type, (_, resources) in world.rows.items():
        for resource in resources.values():
            stated = set(resource.attributes) | {"department", "departments"}
            assert stated >= set(COLUMNS[resource_type])
            assert set(resource.attributes) <= set(COLUMNS[resource_type]), resource_type


# Every operator on every kind of column: texts, flags, numbers, collections, what no column holds,
# what is nothing for the type; and on the context, stated and not.
KINDS = ("release", "deployment", "dataset", "model", "key", "person", "quota", "version", "review")
_CONTEXT_NAMES = ("classification", "client_address", "time", "tokens")
_TEXTS = (*SLUGS, "organization", "embeddings", "text", "internal", "restricted", "09:30")
_FITTING = {
    "department": ("eq", "ne", "in", "not_in", "same_department"),
    "departments": ("contains", "contains_any", "same_department"),
    "owner": ("is_self", "ne", "eq", "lte", "gte"),
    "responsible": ("is_self", "ne"),
    "shared": ("is_true", "eq", "ne"),
    "client_address": ("in_network", "not_in_network"),
    "time": ("lte", "gte"),
    "tokens": ("lte", "gte"),
}
_FITTING_VALUES: dict[str, tuple[Any, ...]] = {
    "classification": ("internal", "restricted", "confidential", "public"),
    "environment": ("staging", "production"),
    "modality": ("text", "image"),
    "name": ("clinical-true", "finance-false"),
    "owner": (1, 10**6),
    "responsible": (1, 10**6),
    "shared": (True, False),
    "state": ("rejected", "approved"),
    "task": ("embeddings", "text-generation"),
    "tier": ("limited", "high"),
    "time": ("09:30", "23:00"),
    "tokens": (1, 500),
    "visibility": ("organization", "department"),
}


def _condition(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    known = [*COLUMNS[kind], "department"] * 2 + [f"context.{name}" for name in _CONTEXT_NAMES]
    attribute = draw(st.sampled_from([*known, "unheard_of"]))
    name = attribute.removeprefix("context.")
    fits = draw(st.integers(0, 9)) > 1
    operators = _FITTING.get(name, ("eq", "ne", "in", "not_in")) if fits else tuple(Operator)
    operator = str(draw(st.sampled_from(operators)))
    values = st.sampled_from(
        _FITTING_VALUES.get(name, SLUGS) if fits else (*_TEXTS, 0, 2**62, True)
    )
    value: Any = draw(values)
    if operator in WITHOUT_VALUE:
        value = None
    elif operator in WITH_NETWORKS:
        value = ["10.0.0.0/8", "2001:db8::/32"]
    elif operator in WITH_LIST:
        value = draw(st.lists(values, min_size=1, max_size=2))
    return {"attribute": attribute, "operator": operator, "value": value}


def _is_valid(condition: dict[str, Any]) -> bool:
    try:
        Condition.model_validate(condition)
    except ValueError:
        return False
    return True


@st.composite
def _policies(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """A resource type, and rules about it."""
    kind = draw(st.sampled_from(KINDS))
    rules = []
    for _ in range(draw(st.integers(1, 4))):
        conditions = [_condition(draw, kind) for _ in range(draw(st.integers(0, 2)))]
        rules.append(
            {
                "effect": draw(st.sampled_from(["permit", "permit", "forbid"])),
                "principal": draw(_MATCHERS),
                "conditions": [found for found in conditions if _is_valid(found)],
            }
        )
    return kind, rules


_CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "classification": st.sampled_from(["internal", "public"]),
        "time": st.sampled_from(["09:30", "23:00"]),
        "tokens": st.sampled_from([1, 1000]),
        "client_address": st.sampled_from(["10.1.2.3", "192.0.2.1", "nowhere"]),
    },
)
_MATCHERS = st.sampled_from(
    [
        {"kinds": ["person"]},
        {"roles": ["admin", "auditor"]},
        {"department_roles": ["lead", "key"]},
        {"member_roles": ["lead", "developer", "viewer", "key"]},
        {"member_roles": ["lead", "viewer"], "departments": ["clinical", "engineering"]},
    ]
)
_EVERY_TIME = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_PEOPLE = {"effect": "permit", "principal": {"kinds": ["person"]}, "conditions": []}


def _where(attribute: str, operator: str, value: Any) -> dict[str, Any]:
    return {"attribute": attribute, "operator": operator, "value": value}


# Two conditions that hold by different members of one collection.
_SEVERAL = [
    {
        **_PEOPLE,
        "conditions": [_where("departments", "contains", s) for s in ("engineering", "finance")],
    }
]
# A forbid that the context rules out, and that errs on every row all the same.
_LAPSED = [
    _PEOPLE,
    {
        **_PEOPLE,
        "effect": "forbid",
        "conditions": [_where("context.tokens", "gte", 500), _where("visibility", "lte", 1)],
    },
]
# A column that is empty is not the value, and has no order.
_NOTHING_IS_NOT = [
    {**_PEOPLE, "conditions": [_where("owner", "ne", 10**6)]},
    {**_PEOPLE, "conditions": [_where("department", "not_in", ["clinical"])]},
]
# Nor after two conditions that it is the value, which a single join must serve.
_NOTHING_IS_NOT_AFTER_ALL = [
    {**_PEOPLE, "conditions": [_where("department", "eq", "clinical")] * 2},
    {**_PEOPLE, "conditions": [_where("department", "ne", "clinical")]},
]
_NO_ORDER_IN_NOTHING = [
    _PEOPLE,
    {**_PEOPLE, "effect": "forbid", "conditions": [_where("owner", "gte", 10**6)]},
]


def _agree(world: World, policy: tuple[str, list[dict[str, Any]]], context: dict[str, Any]) -> None:
    kind, rules = policy
    action = VIEW_ACTIONS[kind]
    install_rules(
        [
            {**rule, "id": f"rule-{n}", "description": "d", "actions": [action]}
            for n, rule in enumerate(rules)
        ]
    )
    snapshot = active_policy()
    for actor in world.actors:
        _compare(world, snapshot, kind, action, actor, context)


@pytest.mark.sweep
@settings(_EVERY_TIME, max_examples=60)
@given(policy=_policies(), context=_CONTEXTS)
@example(policy=("release", _SEVERAL), context={})
@example(policy=("release", _LAPSED), context={"tokens": 1})
@example(policy=("key", _NOTHING_IS_NOT), context={})
@example(policy=("key", _NOTHING_IS_NOT_AFTER_ALL), context={})
@example(policy=("key", _NO_ORDER_IN_NOTHING), context={})
def test_any_policy_lists_what_it_decides(
    world: World, policy: tuple[str, list[dict[str, Any]]], context: dict[str, Any]
) -> None:
    _agree(world, policy, context)


@pytest.mark.sweep
@settings(_EVERY_TIME, max_examples=examples(150, 600))
@given(policy=_policies(), context=_CONTEXTS)
def test_any_of_many_policies_lists_what_it_decides(
    world: World, policy: tuple[str, list[dict[str, Any]]], context: dict[str, Any]
) -> None:
    _agree(world, policy, context)


def test_a_window_of_time_opens_and_closes_a_list(world: World) -> None:
    hours = [
        {"attribute": "context.time", "operator": "gte", "value": "08:00"},
        {"attribute": "context.time", "operator": "lte", "value": "17:59"},
        {"attribute": "context.weekday", "operator": "lte", "value": 5},
    ]
    install_rules(
        [
            {
                "id": "office-hours",
                "effect": "permit",
                "description": "everybody looks at models in office hours",
                "principal": {"kinds": ["person"]},
                "actions": ["model:view"],
                "conditions": hours,
            }
        ]
    )
    actor = world.actors[0]
    for moment, weekday, seen in (("08:00", 1, 6), ("18:00", 1, 0), ("12:00", 6, 0)):
        rows = visible_to(
            actor,
            Action.MODEL_VIEW,
            Model.objects.all(),
            resource_type="model",
            context={"time": moment, "weekday": weekday},
        )
        assert rows.count() == seen
