"""Select the static files that `collectstatic` copies."""

from __future__ import annotations

from django.contrib.staticfiles.apps import StaticFilesConfig


class StaticAssetsConfig(StaticFilesConfig):
    """Django's static files, without those of packages that our pages do not use."""

    ignore_patterns = [  # noqa: RUF012 (Django's own is an attribute of the instance)
        *StaticFilesConfig.ignore_patterns,
        "redoc",
        "rest_framework",
    ]
