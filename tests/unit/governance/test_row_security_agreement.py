"""The database never hides what the policy shows: lists are the same within the scope and without.

The other direction is the backstop's work (`test_row_security`): it shows less than everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import Model as DjangoModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from governance import rowsecurity
from governance.credentials.models import Credential
from governance.keys.models import ApiKey
from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from governance.permissions import VIEW_ACTIONS
from governance.policy.selectors import visible_to
from governance.principals import Principal, PrincipalKind, service_principal
from governance.quotas.models import QuotaLimit
from governance.reviews.models import Review
from governance.usage.models import UsageRecord
from registry.batches.models import Batch
from registry.datasets.models import Dataset
from registry.evaluations.models import Evaluation, Gate
from registry.feedback.models import Feedback
from registry.files.models import StoredFile
from registry.incidents.models import Incident
from registry.intake.models import Intake
from registry.knowledge.models import DocumentVersion, KnowledgeBase
from registry.releases.models import Release
from registry.responses.models import StoredResponse
from registry.versions.classification import version_classifications
from registry.versions.models import Model, ModelVersion
from tests.unit.governance.row_security_world import SLUGS, Estate, estates, names_of
from tests.unit.policy_support import install_rules
from workers.deployments.models import Deployment
from workers.jobs.models import Job

# Model of each list, with the joins of its selector, because an inner join hides rows too.
LISTS: dict[str, tuple[type[DjangoModel], tuple[str, ...]]] = {
    "batch": (Batch, ("department",)),
    "credential": (Credential, ("department",)),
    "dataset": (Dataset, ("department",)),
    "deployment": (Deployment, ("release__version__model", "release__version__base__model")),
    "document": (DocumentVersion, ("document__base",)),
    "evaluation": (Evaluation, ("version__model", "dataset_version__dataset")),
    "feedback": (Feedback, ("department",)),
    "file": (StoredFile, ("department",)),
    "gate": (Gate, ("model", "dataset")),
    "incident": (Incident, ("department", "reporter")),
    "intake": (Intake, ("model",)),
    "job": (Job, ("department",)),
    "key": (ApiKey, ("department", "person")),
    "knowledge": (KnowledgeBase, ("department",)),
    "model": (Model, ("department",)),
    "quota": (QuotaLimit, ("department", "api_key__department")),
    "release": (Release, ("version__model", "department")),
    "request_log": (UsageRecord, ()),
    "response": (StoredResponse, ("department",)),
    "review": (Review, ("department",)),
    "usage": (UsageRecord, ()),
    "version": (ModelVersion, ("model", "base__model", "dataset_version__dataset")),
}
CONDITIONS = st.one_of(
    st.builds(
        lambda attribute, operator, value: {
            "attribute": attribute,
            "operator": operator,
            "value": [value] if operator == "in" else value,
        },
        st.sampled_from(["department", "visibility"]),
        st.sampled_from(["eq", "ne", "in"]),
        st.sampled_from([*SLUGS, "organization"]),
    ),
    st.builds(
        lambda value: {"attribute": "departments", "operator": "contains", "value": value},
        st.sampled_from(SLUGS),
    ),
    st.sampled_from(
        [
            {"attribute": "departments", "operator": "same_department"},
            {"attribute": "department", "operator": "same_department"},
            {"attribute": "shared", "operator": "is_true"},
            {"attribute": "owner", "operator": "is_self"},
            {"attribute": "classification", "operator": "eq", "value": "restricted"},
            {"attribute": "classification", "operator": "ne", "value": "restricted"},
        ]
    ),
)
RULES = st.lists(
    st.fixed_dictionaries(
        {
            "principal": st.sampled_from(
                [
                    {"kinds": ["person"]},
                    {"kinds": ["key"]},
                    {"department_roles": ["lead", "key"]},
                    {"member_roles": ["lead", "developer", "viewer", "key"]},
                ]
            ),
            "conditions": st.lists(CONDITIONS, max_size=2),
            "resource_types": st.sampled_from([[], ["model", "release", "usage"], ["key"]]),
        }
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture
def actors(
    policy: object, department: Callable[[str], Department], person: Callable[..., Person]
) -> list[Principal]:
    """One of each kind, over three departments in which things are shared and named for others."""
    world = estates(department, person)
    share(world)
    people = [
        person(f"P{n}", *roles)
        for n, roles in enumerate(
            [
                ("admin",),
                ("auditor",),
                ("reviewer:security",),
                ("lead@clinical",),
                ("developer@engineering", "viewer@finance"),
                ("viewer@finance", "reviewer:privacy"),
                (),
            ]
        )
    ]
    ApiKey.objects.create(**names_of("token"), person=people[3])
    keys = [
        Principal(kind=PrincipalKind.KEY, id=slug, name=slug, department=slug, key_id=1)
        for slug in SLUGS
    ]
    return [*map(principal_for_person, people), *keys, service_principal("controller")]


def share(world: dict[str, Estate]) -> None:
    """Finance's model is shared; engineering's release names clinical; each stands on another."""
    clinical, engineering, finance = (world[slug] for slug in SLUGS)
    Model.objects.filter(pk=finance.rows[Model][0].pk).update(shared=True)
    engineering.rows[Release][0].departments.add(clinical.department)
    Release.objects.filter(pk=finance.rows[Release][0].pk).update(visibility="organization")
    base, data = finance.rows[ModelVersion][0], clinical.rows[Dataset][0].versions.get()
    # The base stands on data of nobody's but its owner's; what is made of it is as sensitive.
    Dataset.objects.filter(pk=finance.rows[Dataset][0].pk).update(classification="restricted")
    ModelVersion.objects.filter(pk=base.pk).update(
        dataset_version=finance.rows[Dataset][0].versions.get()
    )
    ModelVersion.objects.filter(pk=engineering.rows[ModelVersion][0].pk).update(
        kind="adapter", base=base, dataset_version=data
    )


def listed(actor: Principal) -> dict[str, list[Any]]:
    found = {}
    for resource_type, (model, joined) in LISTS.items():
        rows = model._base_manager.select_related(*joined).order_by("pk")
        action = VIEW_ACTIONS[resource_type]
        found[resource_type] = [
            row.pk for row in visible_to(actor, action, rows, resource_type=resource_type)
        ]
    deployed = Deployment.objects.filter(pk__in=found["deployment"])
    versions = [*found["version"], *deployed.values_list("release__version", flat=True)]
    found["classifications"] = sorted(version_classifications(versions).items())
    return found


def test_everybodys_lists_are_the_same_under_the_default_policy(actors: list[Principal]) -> None:
    shown = 0
    for actor in actors:
        without = listed(actor)
        with rowsecurity.scope(actor):
            assert listed(actor) == without, actor.name
        shown += sum(map(len, without.values()))
    assert shown > 100


@pytest.mark.sweep
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rules=RULES)
def test_everybodys_lists_are_the_same_under_any_policy(
    actors: list[Principal], rules: list[dict[str, Any]]
) -> None:
    views = sorted({action.value for action in VIEW_ACTIONS.values()})
    common = {"effect": "permit", "description": "d", "actions": views}
    install_rules([{**common, "id": f"rule-{n}", **rule} for n, rule in enumerate(rules)])
    for actor in actors:
        without = listed(actor)
        with rowsecurity.scope(actor):
            assert listed(actor) == without, (actor.name, rules)


def test_every_list_of_the_policy_is_compared() -> None:
    open_to_all = {
        "audit",
        "department",
        "node",
        "person",
        "policy",
        "review_policy",
        "session",
    }
    assert set(LISTS) == set(VIEW_ACTIONS) - open_to_all
    assert set(LISTS) == set(rowsecurity.TABLES)
