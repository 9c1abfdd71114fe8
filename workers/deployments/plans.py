"""Load the bytes of a deployment in an engine worker."""

from __future__ import annotations

from dataclasses import dataclass

from governance.errors import InvalidInput, WrongState
from registry.catalog import get_task
from registry.manifests import Manifest, ManifestMismatch
from registry.releases.serving import serving_verdicts
from registry.versions.models import ModelVersion, VersionKind
from workers.deployments.models import Deployment


@dataclass(frozen=True, slots=True)
class Weights:
    """The files of one version, by manifest."""

    name: str
    digest: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Everything that a host needs in order to load one deployment; nothing of Django in it.

    `engine` and `runner` are dotted names. `adapter` stands on `weights`; without one the weights
    serve alone. `digest` is the one that the approved release names; `expires_at` is when it stops
    serving, in seconds since the epoch.
    """

    deployment_id: int
    name: str
    task: str
    engine: str
    runner: str
    architectures: tuple[str, ...]
    digest: str
    expires_at: float
    weights: Weights
    adapter: Weights | None = None


def load_plan(deployment: Deployment) -> LoadPlan:
    """Plan the loading of a deployment.

    Raises:
        WrongState: its release may not serve.
        ManifestMismatch: the recorded manifest does not have the digest, or cannot be read.
        InvalidInput: its version is of a kind that no engine loads.
    """
    release = deployment.release
    verdict = serving_verdicts([release])[release.pk]
    if verdict.refusal is not None:
        raise verdict.refusal
    version = release.version
    weights, adapter = _weights(version), None
    if version.kind == VersionKind.ADAPTER and version.base is not None:
        weights, adapter = _weights(version.base), weights
        if adapter.manifest.base_digest != weights.digest:
            raise ManifestMismatch(
                f"{version} was made on another base than {version.base}.", path=""
            )
    elif version.kind not in {VersionKind.BASE, VersionKind.FULL}:
        raise InvalidInput(f"{version} is of kind {version.kind}, which no engine loads.")
    if verdict.until is None:
        raise WrongState(f"Release {release.pk} has no end; it may not serve.")
    task = get_task(version.model.task)
    return LoadPlan(
        deployment_id=deployment.pk,
        name=deployment.name,
        task=task.name,
        engine=task.engine,
        runner=task.runner,
        architectures=task.architectures,
        digest=version.digest,
        expires_at=verdict.until.timestamp(),
        weights=weights,
        adapter=adapter,
    )


def _weights(version: ModelVersion) -> Weights:
    try:
        manifest = Manifest.from_json(version.manifest)
    except InvalidInput as error:
        raise ManifestMismatch(f"{version}: {error.message}", path="") from error
    if manifest.digest != version.digest:
        raise ManifestMismatch(
            f"The manifest of {version} does not have the digest {version.digest}.", path=""
        )
    return Weights(name=str(version), digest=version.digest, manifest=manifest)
