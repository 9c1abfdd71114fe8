"""Models, versions and the graph around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from pytest_django import DjangoAssertNumQueries

from governance.errors import InvalidInput, NotFound, Unavailable, WrongState
from governance.people.models import Department, Person
from governance.principals import Principal, service_principal
from registry.manifests import Manifest, ManifestFile
from registry.versions.models import Model, ModelVersion, VersionState
from registry.versions.selectors import lineage, model_get, models_visible_to, versions_visible_to
from registry.versions.services import model_create, version_register
from tests.unit.registry.objects import CLASSIFY, data, model, stored, version

pytestmark = pytest.mark.django_db


@pytest.fixture
def maker(person: Callable[..., Person]) -> Person:
    return person("Maker", "developer@clinical")


@pytest.fixture
def encoder(maker: Person, department: Callable[[str], Department]) -> Model:
    return model(maker, department("clinical"), "minilm", "embeddings", shared=True)


def register(of: Model, maker: Person, manifest: Manifest, **changes: Any) -> ModelVersion:
    return version_register(
        **{
            "actor": service_principal("controller"),
            "model": of,
            "kind": "base",
            "manifest": manifest,
            "base": None,
            "dataset_version": None,
            "parameters": {},
            "metrics": {},
            "history": [],
            "license": "Apache-2.0",
            "card": "",
            "job_id": uuid4(),
            "created_by": maker,
            **changes,
        }
    )


def test_a_model_is_made_once_and_seen_by_its_department_alone(
    actor: Callable[..., Principal], department: Callable[[str], Department]
) -> None:
    developer, stranger = actor("Devi", "developer@clinical"), actor("Fritz", "lead@finance")
    clinical = department("clinical")
    made = model_create(actor=developer, name="sentiment", department=clinical, task=CLASSIFY)
    assert model_get(actor=developer, name="sentiment") == made
    with pytest.raises(NotFound):
        model_get(actor=stranger, name="sentiment")
    with pytest.raises(NotFound):
        model_create(actor=stranger, name="other", department=clinical, task=CLASSIFY)
    with pytest.raises(WrongState, match="already exists"):
        model_create(actor=developer, name="sentiment", department=clinical, task=CLASSIFY)
    with pytest.raises(InvalidInput, match="no task 'x'"):
        model_create(actor=developer, name="other", department=clinical, task="x")


def test_a_shared_model_and_its_versions_are_seen_by_every_department(
    encoder: Model, maker: Person, actor: Callable[..., Principal]
) -> None:
    version(encoder, maker)
    stranger = actor("Fritz", "viewer@finance")
    assert [vars(each)["version_count"] for each in models_visible_to(stranger)] == [1]
    assert versions_visible_to(stranger).count() == 1
    Model.objects.update(shared=False)
    assert not versions_visible_to(stranger).exists()


def test_a_list_of_versions_takes_a_fixed_number_of_queries(
    encoder: Model,
    maker: Person,
    actor: Callable[..., Principal],
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    base = version(encoder, maker)
    for _ in range(3):
        version(encoder, maker, "adapter", base)
    developer = actor("Devi", "developer@clinical")
    with django_assert_num_queries(2):
        for each in versions_visible_to(developer):
            assert each.model.department.slug == "clinical"
            assert each.base is None or each.base.model.name == "minilm"
            assert each.created_by.name == "Maker"


def test_nothing_is_registered_when_mlflow_is_away(
    encoder: Model, maker: Person, settings: Any
) -> None:
    settings.MLFLOW_TRACKING_URI = "http://127.0.0.1:9"
    with pytest.raises(Unavailable, match=r"MLflow at http://127\.0\.0\.1:9") as refused:
        register(encoder, maker, stored({"a.json": b"{}"}))
    assert "MLFLOW_TRACKING_URI" in refused.value.hint
    assert not ModelVersion.objects.exists()


def test_a_version_needs_its_files_and_the_base_that_its_manifest_names(
    encoder: Model, maker: Person
) -> None:
    base = version(encoder, maker)
    absent = Manifest(files=(ManifestFile("a", 1, "0" * 64),))
    with pytest.raises(WrongState, match="holds no files"):
        register(encoder, maker, absent)
    with pytest.raises(InvalidInput, match="cannot have a base"):
        register(encoder, maker, stored({"a": b"a"}), base=base)
    with pytest.raises(InvalidInput, match="needs a base version"):
        register(encoder, maker, stored({"a": b"a"}), kind="adapter")
    with pytest.raises(InvalidInput, match="The manifest names the base digest"):
        register(encoder, maker, stored({"a": b"a"}), kind="adapter", base=base)
    base.state = VersionState.RECALLED
    base.save()
    with pytest.raises(WrongState, match="minilm v1 is recalled"):
        register(encoder, maker, stored({"a": b"a"}, base.digest), kind="adapter", base=base)


def test_the_database_refuses_an_adaptation_without_a_base(encoder: Model, maker: Person) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        version(encoder, maker, "adapter")


def test_lineage_leaves_out_what_another_department_made(
    encoder: Model,
    maker: Person,
    actor: Callable[..., Principal],
    department: Callable[[str], Department],
) -> None:
    base = version(encoder, maker)
    rows = data(maker, department("clinical"), "reviews", [{"text": "a", "label": "b"}])
    own = model(maker, department("finance"), "invoices")
    tuned = version(own, maker, "full", base, dataset_version=rows)
    everything = lineage(base)
    assert {node["id"] for node in everything["nodes"]} == {
        f"version:{base.pk}",
        f"version:{tuned.pk}",
        f"dataset_version:{rows.pk}",
    }
    assert everything["edges"] == [
        {"from": f"version:{base.pk}", "to": f"version:{tuned.pk}"},
        {"from": f"dataset_version:{rows.pk}", "to": f"version:{tuned.pk}"},
    ]
    seen = lineage(base, actor=actor("Devi", "developer@clinical"))
    assert [node["id"] for node in seen["nodes"]] == [f"version:{base.pk}"]
