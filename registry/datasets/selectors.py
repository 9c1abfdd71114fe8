"""Queries for datasets and their versions."""

from __future__ import annotations

from django.db.models import Count, QuerySet

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from registry.datasets.models import Dataset, DatasetVersion


def datasets_visible_to(actor: Principal) -> QuerySet[Dataset]:
    """Return the datasets that `actor` may see, with their department and `version_count`."""
    rows = Dataset.objects.select_related("department", "created_by")
    visible = visible_to(actor, Action.DATASET_VIEW, rows, resource_type="dataset")
    return visible.annotate(version_count=Count("versions", distinct=True))


def dataset_get(*, actor: Principal, name: str) -> Dataset:
    """Return a dataset. Raises NotFound if it does not exist, or `actor` may not see it."""
    dataset = datasets_visible_to(actor).filter(name=name).first()
    if dataset is None:
        raise NotFound(f"Dataset {name[:80]!r} does not exist, or you may not see it.")
    return dataset


def dataset_versions_visible_to(actor: Principal) -> QuerySet[DatasetVersion]:
    """Return the versions of all datasets that `actor` may see."""
    datasets = visible_to(
        actor, Action.DATASET_VIEW, Dataset.objects.order_by(), resource_type="dataset"
    )
    return DatasetVersion.objects.filter(dataset__in=datasets.values("pk")).select_related(
        "dataset__department", "created_by"
    )


def dataset_version_get(*, actor: Principal, id: int) -> DatasetVersion:  # noqa: A002
    """Return a version. Raises NotFound if it does not exist, or `actor` may not see it."""
    version = dataset_versions_visible_to(actor).filter(pk=id).first()
    if version is None:
        raise NotFound(f"Dataset version {id} does not exist, or you may not see it.")
    return version
