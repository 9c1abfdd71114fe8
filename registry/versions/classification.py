"""Classification of the data in a version and its bases, computed in the database.

The highest classification of the data that the version and what it stands on were trained on;
`public` where none was. What stands on more than `DEPTH` levels is taken as `restricted`.
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
    """The classification as an expression; `path` leads to the version (`release__version__`)."""
    levels = [
        f"{path}{'base__' * level}dataset_version__dataset__classification"
        for level in range(DEPTH)
    ]
    deeper = Q(**{f"{path}{'base__' * DEPTH}isnull": False})
    whens = [When(deeper, then=Value(Classification.RESTRICTED.value))]
    for classification in _FROM_HIGHEST:
        found = Q()
        for level in levels:
            found |= Q(**{level: classification.value})
        whens.append(When(found, then=Value(classification.value)))
    return Case(*whens, default=Value(Classification.PUBLIC.value), output_field=CharField())


def version_classifications(version_ids: Collection[int]) -> dict[int, str]:
    """The classification of each version, by its id, in one query."""
    rows = ModelVersion.objects.filter(pk__in=version_ids)
    return dict(rows.values_list("pk", classification_expression()))
