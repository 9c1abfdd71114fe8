"""Load the bytes of a deployment in an engine worker."""

from __future__ import annotations

from dataclasses import dataclass

from governance.errors import InvalidInput, WrongState
from registry.catalog import get_task
from registry.catalog.engines import EngineName, engine_class
from registry.manifests import Manifest, ManifestMismatch
from registry.releases.engines import Precision
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

    `engine` and `runner` are dotted names; `engine_name` is what the release calls the engine, and
    `dtype` the precision that it names, None for the stored one. `adapter` stands on `weights`;
    without one the weights serve alone. `prompt` stands on the adapter, or on the weights. `digest`
    is the one that the approved release names; `expires_at` is when it stops serving, in seconds
    since the epoch.
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
    prompt: Weights | None = None
    engine_name: str = EngineName.OWN
    dtype: str | None = None

    @property
    def top(self) -> Weights:
        """The files of the version that is served."""
        return self.prompt or self.adapter or self.weights


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
    below, prompt, adapter = version, None, None
    if below.kind == VersionKind.PROMPT:
        prompt, below = _on_base(below)
    if below.kind == VersionKind.ADAPTER:
        adapter, below = _on_base(below)
    if below.kind not in {VersionKind.BASE, VersionKind.FULL}:
        raise InvalidInput(f"{version} stands on a {below.kind}, which no engine loads.")
    if verdict.until is None:
        raise WrongState(f"Release {release.pk} has no end; it may not serve.")
    task = get_task(version.model.task)
    # The verdict has compared them with the approved dossier.
    engine = EngineName(release.engine)
    return LoadPlan(
        deployment_id=deployment.pk,
        name=deployment.name,
        task=task.name,
        engine=engine_class(engine, task),
        runner=task.runner,
        architectures=task.architectures,
        digest=version.digest,
        expires_at=verdict.until.timestamp(),
        weights=_weights(below),
        adapter=adapter,
        prompt=prompt,
        engine_name=engine,
        dtype=None if release.precision == Precision.STORED else release.precision,
    )


def _on_base(version: ModelVersion) -> tuple[Weights, ModelVersion]:
    """Return the files of an adaptation, and the version that it stands on."""
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
