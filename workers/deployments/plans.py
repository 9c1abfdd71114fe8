"""Plan how an engine worker loads a deployment."""

from __future__ import annotations

from governance.errors import InvalidInput, WrongState
from registry.catalog import get_task
from registry.catalog.engines import EngineName, engine_class
from registry.manifests import Manifest, ManifestMismatch
from registry.releases.engines import Precision
from registry.releases.serving import serving_verdicts
from registry.versions.models import ModelVersion, VersionKind
from workers.control.protocol import LoadPlan, Weights
from workers.deployments.models import Deployment


def load_plan(deployment: Deployment) -> LoadPlan:
    """Plan the loading of a deployment.

    Raises:
        WrongState: the release may not serve.
        ManifestMismatch: the recorded manifest has another digest, or cannot be read.
        InvalidInput: no engine loads versions of this kind.
    """
    release = deployment.release
    verdict = serving_verdicts([release])[release.pk]
    if verdict.refusal is not None:
        raise verdict.refusal
    version = release.version
    below, prompt, adapter = version, None, None
    if below.kind == VersionKind.PROMPT:
        prompt, below = _on_base(below)
    if below.kind == VersionKind.ADAPTER:
        adapter, below = _on_base(below)
    if below.kind not in {VersionKind.BASE, VersionKind.FULL, VersionKind.HOSTED}:
        raise InvalidInput(f"{version} is based on a {below.kind}, which no engine loads.")
    if verdict.until is None:
        raise WrongState(f"Release {release.pk} has no end; it may not serve.")
    task = get_task(version.model.task)
    # The verdict has compared engine and precision with the approved dossier.
    engine = EngineName(release.engine)
    return LoadPlan(
        deployment_id=deployment.pk,
        name=deployment.name,
        task=task.name,
        engine=engine_class(engine, task),
        runner=task.runner,
        architectures=task.architectures if adapter is None else task.base_architectures,
        digest=version.digest,
        expires_at=verdict.until.timestamp(),
        weights=_weights(below),
        adapter=adapter,
        prompt=prompt,
        engine_name=engine,
        dtype=None if release.precision == Precision.STORED else release.precision,
        code=verdict.dossier.code,
        packages=verdict.dossier.packages,
    )


def _on_base(version: ModelVersion) -> tuple[Weights, ModelVersion]:
    """Return the files of an adapter or prompt, and its base version."""
    if version.base is None:
        raise InvalidInput(f"{version} is of kind {version.kind} and names no base.")
    files = _weights(version)
    if files.manifest.base_digest != version.base.digest:
        raise ManifestMismatch(f"{version} was made on another base than {version.base}.", path="")
    return files, version.base


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
