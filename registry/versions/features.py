"""Input features of a version, from its model's configuration."""

from __future__ import annotations

import json

from governance.errors import DomainError
from registry.catalog import TASKS
from registry.catalog.declaration import Modality
from registry.catalog.features import Feature, features_of
from registry.manifests import Manifest
from registry.storage import store
from registry.versions.models import ModelVersion

CONFIG = "config.json"
MAX_CONFIG_BYTES = 4 * 1024**2


def version_features(version: ModelVersion) -> list[Feature]:
    """Return the features of a version whose task takes tables; empty for other tasks, and if the
    store has no readable configuration."""
    task = TASKS.get(version.model.task)
    if task is None or Modality.TABLE not in task.inputs:
        return []
    try:
        manifest = Manifest.from_json(version.manifest)
        config = json.loads(store.version_file(manifest, CONFIG, most=MAX_CONFIG_BYTES))
        return features_of(config) if isinstance(config, dict) else []
    except (DomainError, ValueError, RecursionError):
        return []
