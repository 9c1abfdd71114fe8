"""Descriptions of hosted versions in their rows, checked against the digest of their file.

Pages, dossiers and the gateway read them from the row, without the store.
"""

from __future__ import annotations

import hashlib
from typing import Any

from django.db.models import Q

from governance.errors import InvalidInput, WrongState
from registry.catalog.declaration import Modality, Task
from registry.catalog.engines import EngineName, measured_metrics
from registry.catalog.hosted import HOSTED_FILE, HostedDescription
from registry.catalog.operations import Operation, operations_for
from registry.datasets.models import Classification, DatasetVersion
from registry.manifests import Manifest, ManifestMismatch
from registry.versions.models import ModelVersion, VersionKind
from registry.versions.weights import weights_version


def hosted_of(version: ModelVersion) -> HostedDescription | None:
    """Return the description of the provider's model that answers for a version: its own, or that
    of the hosted version below a prompt. None if no provider answers for it.

    Raises:
        ManifestMismatch: the row's description does not match the file in the manifest.
    """
    hosted = weights_version(version)
    if hosted.kind != VersionKind.HOSTED:
        return None
    try:
        description = HostedDescription.read(hosted.parameters)
        check_description(description, Manifest.from_json(hosted.manifest))
    except InvalidInput as error:
        raise ManifestMismatch(f"{hosted}: {error.message}", path=HOSTED_FILE) from error
    return description


def hosted_served(version: ModelVersion) -> HostedDescription | None:
    """Return the same as `hosted_of`, for a page: without the check against the manifest, and None
    for an unreadable row."""
    hosted = weights_version(version)
    if hosted.kind != VersionKind.HOSTED:
        return None
    try:
        return HostedDescription.read(hosted.parameters)
    except InvalidInput:
        return None


def is_hosted(digest: str) -> bool:
    """Return whether a provider answers for the version with this digest."""
    kinds = Q(kind=VersionKind.HOSTED) | Q(base__kind=VersionKind.HOSTED)
    return ModelVersion.objects.filter(kinds, digest=digest).exists()


def check_description(description: HostedDescription, manifest: Manifest) -> None:
    """Raise InvalidInput unless the description is the only file of the manifest."""
    files = {file.path: file.sha256 for file in manifest.files}
    if files != {HOSTED_FILE: hashlib.sha256(description.canonical()).hexdigest()}:
        raise InvalidInput("The description does not match the digest of its file.")


def check_provider_runs(description: HostedDescription | None) -> None:
    """Raise WrongState if the provider has ended the model by now."""
    if description is None:
        return
    try:
        description.check_runs()
    except InvalidInput as error:
        raise WrongState(error.message, hint=error.hint) from error


def takes_hosted(task: Task) -> bool:
    """Return whether a provider can answer for a task."""
    return bool(operations_for(task))


def check_hosted_task(task: Task, description: HostedDescription | None = None) -> None:
    """Raise InvalidInput if no hosted model can serve a task, or the described one cannot."""
    operations = operations_for(task)
    if not operations:
        raise InvalidInput(
            f"A hosted model cannot serve the task {task.name}.",
            hint="Choose a model of another task, such as text-generation.",
            fields={"model": ["Choose a model of another task, such as text-generation."]},
        )
    if description is not None and description.operation not in operations:
        names = " or ".join(operations)
        raise InvalidInput(
            f"The operation {description.operation} cannot serve the task {task.name}.",
            hint=f"Set operation to {names}, or choose a model of another task.",
            fields={"operation": [f"A model of the task {task.name} needs {names}."]},
        )


def check_hosted_evaluation(task: Task) -> None:
    """Raise InvalidInput if a provider's answers cannot be measured for a task."""
    if _is_measurable(task):
        return
    if Operation.CHAT not in operations_for(task):
        raise InvalidInput(
            f"Egress workers measure only answers to messages, so a hosted version cannot be "
            f"evaluated for {task.title}.",
            hint="Request a waiver for the evaluation, and judge the model by its answers.",
            fields={"version": ["The metrics of its task cannot be measured at a provider."]},
        )
    raise InvalidInput(
        f"{task.title} is measured by the likelihood of given texts, which providers do not state, "
        "so a hosted version cannot be evaluated for it.",
        hint="Use a task that answers messages, such as text-generation.",
        fields={"version": ["The metrics of its task cannot be measured at a provider."]},
    )


def can_be_evaluated(version: ModelVersion, task: Task) -> bool:
    """Return whether a version can be evaluated: its task declares how, and a provider's answers
    can be measured if one runs it."""
    if weights_version(version).kind == VersionKind.HOSTED:
        return _is_measurable(task)
    return task.evaluation is not None


def _is_measurable(task: Task) -> bool:
    return bool(measured_metrics(EngineName.HOSTED, task)) and Modality.MESSAGES in task.inputs


def check_cleared(description: HostedDescription, data: DatasetVersion) -> None:
    """Raise InvalidInput if the data may not be sent to the description's provider."""
    levels, level = Classification.values, data.dataset.classification
    if levels.index(level) <= levels.index(description.cleared_for):
        return
    raise InvalidInput(
        f"{data} is {level}; {description.provider} ({description.host}) is cleared for "
        f"{description.cleared_for} data, so none of it is sent there.",
        hint=f"Choose data up to {description.cleared_for}, or submit a new description with "
        f"`cleared_for` {level} for intake.",
        fields={"dataset": [f"Choose data up to {description.cleared_for}."]},
    )


def hosted_settings(description: HostedDescription) -> dict[str, Any]:
    """Return the description as `ModelVersion.parameters` stores it."""
    return description.model_dump(mode="json")
