"""Classify the data in a version and its bases, in the database.

The result is the highest classification of the data that the version and its bases were trained on,
or `public` without any. A version with `DEPTH` or more levels of bases counts as `restricted`.
"""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import Case, CharField, Q, Value, When

from registry.datasets.models import Classification
from registry.versions.models import ModelVersion

DEPTH = 4
_FROM_HIGHEST = (
    Classification.RESTRICTED,
    Classification.CONFIDENTIAL,
    Classification.INTERNAL,
)


def classification_expression(path: str = "") -> Case:
    """Return the classification as SQL; `path` leads to the version (`release__version__`)."""
    levels = [
        f"{path}{'base__' * level}dataset_version__dataset__classification"
        for level in range(DEPTH)
    ]
    deeper = Q(**{f"{path}{'base__' * DEPTH}isnull": False})
    whens = [When(deeper, then=Value(Classification.RESTRICTED.value))]
    for classification in _FROM_HIGHEST:
        condition = Q()
        for level in levels:
            condition |= Q(**{level: classification.value})
        whens.append(When(condition, then=Value(classification.value)))
    return Case(*whens, default=Value(Classification.PUBLIC.value), output_field=CharField())


def version_classifications(version_ids: Collection[int]) -> dict[int, str]:
    """Return the classification of each version, by ID, in one query."""
    rows = ModelVersion.objects.filter(pk__in=version_ids)
    return dict(rows.values_list("pk", classification_expression()))
