"""Paths that the gateway answers itself, as its route tables have them.

Tasks have their paths below `/v1/` and `/v2/` (`registry.catalog.checks.declaration`), which
`assay.asgi` hands to the gateway alone: no task can take a path of the portal or of the API.
"""

from __future__ import annotations

from assay.gateway.stored.feedback import PATH as FEEDBACK
from assay.gateway.stored.surfaces import surface_of
from registry.catalog import paths_answered_by

MODELS = "/v1/models"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Stands for any deployment behind a path.
_NAME = "deployment"


def own_label(method: str, path: str) -> str:
    """Return a path of the gateway as metrics and the ledger name it; empty for all others, such as
    those of tasks."""
    if path in (MODELS, FEEDBACK):
        return path
    if (surface := surface_of(method, path)) is not None:
        return surface.label(method, path)
    return f"{MODELS}/{{id}}" if path.startswith(f"{MODELS}/") else ""


def answered_by(path: str, named: bool) -> str:
    """Return what answers `path`, or with `named` the path with a deployment behind it; empty for
    nothing, so that a task may have it. Imports nothing, since a discovery is going on."""
    for each in (path, f"{path}/{_NAME}") if named else (path,):
        if any(own_label(method, each) for method in _METHODS):
            return "the gateway"
    return ""


def keep_paths() -> None:
    """Keep tasks of other packages from these paths. Call it before anything looks at a task."""
    paths_answered_by(answered_by)
