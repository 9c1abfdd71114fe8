"""Classification of the data that went into a version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from governance.people.models import Department, Person
from registry.datasets.models import Dataset, DatasetVersion
from registry.versions.classification import DEPTH, version_classifications
from registry.versions.models import Model, ModelVersion
from tests.unit.registry import objects


@pytest.fixture
def chain(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> Callable[..., list[ModelVersion]]:
    """Versions standing on each other, each trained on data so classified, or on none."""
    owner, clinical = person("Dora", "developer@clinical"), department("clinical")

    def make(*classifications: str | None) -> list[ModelVersion]:
        model = objects.model(owner, clinical, f"model-{Model.objects.count()}")
        versions: list[ModelVersion] = []
        for said in classifications:
            base = versions[-1] if versions else None
            data: dict[str, Any] = {"dataset_version": _data(owner, clinical, said)}
            kind = "base" if base is None else "adapter"
            versions.append(objects.version(model, owner, kind, base, **data))
        return versions

    return make


def _data(owner: Person, department: Department, said: str | None) -> DatasetVersion | None:
    if said is None:
        return None
    dataset = Dataset.objects.create(
        name=f"data-{Dataset.objects.count()}",
        department=department,
        task="text-classification",
        classification=said,
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


def _found(versions: list[ModelVersion]) -> list[str]:
    found = version_classifications([version.pk for version in versions])
    return [found[version.pk] for version in versions]


def test_the_highest_of_all_that_a_version_stands_on_counts(
    chain: Callable[..., list[ModelVersion]],
) -> None:
    assert _found(chain(None)) == ["public"]
    assert _found(chain(None, "internal", "public")) == ["public", "internal", "internal"]
    assert _found(chain("confidential", "restricted", "internal")) == [
        "confidential",
        "restricted",
        "restricted",
    ]


def test_what_stands_on_more_than_can_be_looked_through_is_restricted(
    chain: Callable[..., list[ModelVersion]],
) -> None:
    found = _found(chain(*["public"] * (DEPTH + 1)))
    assert found == [*["public"] * DEPTH, "restricted"]


def test_many_versions_take_one_query(
    chain: Callable[..., list[ModelVersion]], django_assert_num_queries: Any
) -> None:
    versions = [version for _ in range(3) for version in chain("public", "internal")]
    with django_assert_num_queries(1):
        assert _found(versions) == ["public", "internal"] * 3
