"""Prompt versions, which are stored at once and registered by the controller like any job's output.

There is nothing to compute, so the job starts as delivered. It is registered exactly once, however
often that is tried, and waits while MLflow is unreachable.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import transaction

from governance.errors import InvalidInput, NotFound, WrongState
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from registry.catalog import get_task
from registry.catalog.prompt import PROMPT_FILE, PromptDocument, takes_prompts
from registry.manifests import Manifest, build_manifest
from registry.storage import store
from registry.versions.models import Model, ModelVersion, VersionKind, VersionState
from registry.versions.prompts import prompt_settings
from registry.versions.selectors import versions_visible_to
from workers.jobs.models import Job, JobKind
from workers.jobs.services import job_add

NOTE_MAX = 2_000
# A prompt on a prompt would have two system messages.
BASE_KINDS = (VersionKind.BASE, VersionKind.FULL, VersionKind.ADAPTER, VersionKind.HOSTED)


def prompt_bases(actor: Principal, task: str) -> Any:
    """Return the trusted versions that `actor` sees and a prompt for `task` can use as base."""
    return versions_visible_to(actor).filter(
        model__task=task, state=VersionState.TRUSTED, kind__in=BASE_KINDS
    )


@transaction.atomic
def prompt_version_create(
    *,
    actor: Principal,
    model: Model,
    base_version: ModelVersion,
    document: Mapping[str, Any],
    note: str = "",
) -> Job:
    """Store a prompt on `base_version` and queue its registration as the next version of `model`.

    `note` describes the changes, for the model card.

    Returns:
        The job that registers it; its result names the version.

    Raises:
        InvalidInput: the document or the base does not fit; `fields` says where.
        NotFound: the base is not visible to the actor.
        WrongState: the base is recalled.
        NotPermitted: the actor may not start jobs in the model's department.
    """
    title = f"Register a prompt of {model.name}"
    decision = authorize(
        actor=actor,
        action=Action.JOB_CREATE,
        resource=Resource(type="job", name=title, department=model.department.slug),
    )
    task = get_task(model.task)
    if not takes_prompts(task):
        raise _invalid("model", f"{model.name} does {task.name}, which takes no prompts.")
    _check_base(actor, model, base_version)
    if len(note) > NOTE_MAX or "\0" in note:
        raise _invalid("note", f"A note has at most {NOTE_MAX:,} characters, and no NUL.")
    checked = PromptDocument.read(document)
    manifest = _stored(checked, base_version.digest)
    return job_add(
        actor=actor,
        kind=JobKind.PROMPT,
        department=model.department,
        title=title,
        spec={
            "task": task.name,
            "model": model.pk,
            "model_name": model.name,
            "base": base_version.pk,
            "base_name": str(base_version),
            "base_digest": base_version.digest,
            "digest": manifest.digest,
        },
        delivered={
            "manifest": manifest.to_json(),
            "parameters": prompt_settings(checked),
            "note": note.strip(),
        },
        decision=decision,
    )


def _check_base(actor: Principal, model: Model, base: ModelVersion) -> None:
    if not versions_visible_to(actor).filter(pk=base.pk).exists():
        raise NotFound(f"There is no version {base.pk} that you may see.")
    if base.state != VersionState.TRUSTED:
        raise WrongState(f"{base} is {base.state}; it cannot be the base of a prompt.")
    if base.model.task != model.task:
        raise _invalid(
            "base_version", f"{base} is of task {base.model.task}; {model.name} does {model.task}."
        )
    if base.kind not in BASE_KINDS:
        raise _invalid("base_version", f"{base} is a prompt; choose its base instead.")


def _stored(document: PromptDocument, base_digest: str) -> Manifest:
    """Store the document; the same bytes on the same base are stored once."""
    with tempfile.TemporaryDirectory(prefix="assay-prompt-") as folder:
        Path(folder, PROMPT_FILE).write_bytes(document.canonical())
        manifest = build_manifest(Path(folder), base_digest=base_digest)
        store.adopt(Path(folder), manifest)
    return manifest


def _invalid(field: str, sentence: str) -> InvalidInput:
    return InvalidInput(sentence, fields={field: [sentence]})
