"""Engines of one worker process: one for each set of weights, shared by its adapters. Engines load
only private copies that were hashed while they were written.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from django.conf import settings

from registry.catalog import TASKS, get_task, is_own, task_code
from registry.catalog.code import TaskCode
from registry.catalog.engines import EngineName
from registry.catalog.prompt import PROMPT_FILE, PromptDocument
from registry.releases.software import code_difference
from workers.celery_tasks.comparing import answers_to
from workers.celery_tasks.engines import engine_settings
from workers.control.direct import DirectControl
from workers.control.protocol import (
    CodeDiffers,
    EngineControl,
    LoadPlan,
    ReferenceRequest,
    Weights,
)
from workers.engine_process.client import OWN, OwnEngines
from workers.engines.architectures import UnsupportedModel
from workers.engines.names import load_name
from workers.engines.protocol import Engine
from workers.wire import EngineLoad

logger = logging.getLogger(__name__)


# The same weights may serve several tasks with different runners, and in several precisions.
_EngineKey = tuple[str, str, str, str | None, str, int]


def _engine_key(plan: LoadPlan) -> _EngineKey:
    # Each deployment of a hosted model uses the credential of its own department.
    own = plan.deployment_id if plan.engine_name == EngineName.HOSTED else 0
    return _group(plan.task), plan.engine, plan.runner, plan.dtype, plan.weights.digest, own


def _group(task: str) -> str:
    """Return the group of engines that share a process: all of Assay's own tasks, or one other."""
    return OWN if is_own(task) or task not in TASKS else task


def _code(plan: LoadPlan) -> TaskCode:
    """Return this process's code of the plan's task. Raises CodeDiffers if the plan's differs."""
    code = task_code(plan.task)
    if code is None or code.digest != plan.code:
        difference = code_difference(plan.task, plan.code, plan.packages)
        raise CodeDiffers(
            f"{difference}.",
            hint="Install the packages that the dossier names and start the worker again.",
        )
    return code


@dataclass(slots=True)
class Hosted:
    """One engine with its private folder and the deployments that use it."""

    engine: Engine
    folder: Path
    users: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One loaded deployment. `prompt` is filled in for each request. `code` is the digest of the
    task's loaded packages."""

    plan: LoadPlan
    digest: str
    engine: Engine
    adapter: str | None
    prompt: PromptDocument | None = None
    code: str = ""


class EngineHost:
    """Implements `workers.deployments.host.Host`. One thread loads, another unloads, and any
    number of threads call `find`. Engines choose their own device.
    """

    def __init__(
        self,
        control: EngineControl | None = None,
        *,
        own: OwnEngines | None = None,
        hosted: Callable[[Path, int], Engine] | None = None,
    ) -> None:
        """`control` copies the files of versions, by default from the store. Assay's own engines
        run in the processes of `own`, by default in this process. `hosted` makes the engine of a
        hosted model from the folder of its description and the ID of its deployment; without it,
        this process calls no providers."""
        self._hosted = hosted
        self._control = control or DirectControl()
        self._own = own
        self._root: Path | None = None
        self._engines: dict[_EngineKey, Hosted] = {}
        self._loaded: dict[int, Loaded] = {}
        self._leases: Mapping[int, float] = {}
        self._lock = threading.Lock()

    def loaded(self) -> dict[int, str]:
        """Return the loaded digest of each deployment, by its ID."""
        with self._lock:
            return {pk: loaded.digest for pk, loaded in self._loaded.items()}

    def find(self, deployment_id: int) -> Loaded | None:
        """Return the deployment if it can answer now."""
        return self._loaded.get(deployment_id)

    def answers(
        self,
        deployment_id: int,
        requests: Sequence[ReferenceRequest],
        opened: Callable[[str], BytesIO],
    ) -> list[dict[str, Any]]:
        """Implement `Host.answers`. Raises as `answers_to`, and RuntimeError if not loaded."""
        loaded = self._loaded.get(deployment_id)
        if loaded is None:
            raise RuntimeError("It is not loaded any more.")
        return answers_to(
            requests,
            engine=loaded.engine,
            task=get_task(loaded.plan.task),
            adapter=loaded.adapter,
            opened=opened,
        )

    def code(self, deployment_id: int) -> str:
        """Implement `Host.code`; empty if the deployment is not loaded."""
        loaded = self._loaded.get(deployment_id)
        return "" if loaded is None else loaded.code

    def faults(self) -> dict[int, str]:
        """Return the faults of engines that ended by themselves, by deployment."""
        with self._lock:
            loaded = list(self._loaded.items())
        return {pk: fault for pk, each in loaded if (fault := each.engine.fault)}

    def loads(self) -> dict[int, EngineLoad]:
        """Return the load of each deployment's engine; deployments of one base share an engine."""
        with self._lock:
            engines = {pk: loaded.engine for pk, loaded in self._loaded.items()}
        loads: dict[Engine, EngineLoad] = {}
        for engine in engines.values():
            if engine not in loads and not engine.fault:
                loads[engine] = engine.current_load()
        return {pk: loads[engine] for pk, engine in engines.items() if engine in loads}

    def lease(self, until: Mapping[int, float]) -> None:
        self._leases = dict(until)

    def leased(self, deployment_id: int) -> bool:
        """Return whether the controller has recently confirmed that the deployment may serve."""
        return self._leases.get(deployment_id, 0.0) > time.monotonic()

    def load(self, plan: LoadPlan) -> str:
        """Implement `Host.load`. If loading fails, an engine without other users is closed."""
        key, pk = _engine_key(plan), plan.deployment_id
        code = _code(plan)
        with self._lock:
            hosted = self._engines.get(key)
            if hosted is not None and hosted.engine.fault:
                # The reconciler unloads its other deployments within a round.
                raise RuntimeError(f"Its engine is being ended: {hosted.engine.fault}")
            if hosted is not None:
                # Register the use now, so that a concurrent unload does not close the engine.
                hosted.users.add(pk)
        hosted = hosted or self._start(key, plan, code)
        adapter = prompt = None
        try:
            if plan.prompt is not None:
                prompt = self._read_prompt(plan, plan.prompt)
            if plan.adapter is not None:
                adapter = str(pk)
                folder = self._copy(plan, plan.adapter)
                try:
                    hosted.engine.add_adapter(adapter, folder)
                finally:
                    shutil.rmtree(folder.parent, ignore_errors=True)
        except BaseException:
            self._remove_user(key, pk)
            raise
        digest = plan.top.manifest.digest
        with self._lock:
            self._loaded[pk] = Loaded(plan, digest, hosted.engine, adapter, prompt, code.digest)
        return digest

    def unload(self, deployment_id: int) -> None:
        with self._lock:
            gone = self._loaded.pop(deployment_id, None)
        if gone is None:
            return
        try:
            if gone.adapter is not None:
                gone.engine.remove_adapter(gone.adapter)
        finally:
            self._remove_user(_engine_key(gone.plan), deployment_id)

    def close(self) -> None:
        """Unload everything and remove the private copies."""
        for deployment_id in self.loaded():
            self.unload(deployment_id)
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    def _start(self, key: _EngineKey, plan: LoadPlan, code: TaskCode) -> Hosted:
        folder = self._copy(plan, plan.weights)
        try:
            engine = self._engine(plan, folder, code)
        except BaseException:
            shutil.rmtree(folder.parent, ignore_errors=True)
            raise
        hosted = Hosted(engine=engine, folder=folder.parent, users={plan.deployment_id})
        with self._lock:
            self._engines[key] = hosted
        return hosted

    def _engine(self, plan: LoadPlan, folder: Path, code: TaskCode) -> Engine:
        if plan.engine_name == EngineName.HOSTED:
            if self._hosted is None:
                raise UnsupportedModel("Only egress workers call providers.")
            return self._hosted(folder, plan.deployment_id)
        arguments: dict[str, Any] = {
            "architectures": plan.architectures,
            "runner": plan.runner,
            "threads": settings.ENGINE_THREADS,
            "dtype": plan.dtype,
            **engine_settings(plan.engine_name),
        }
        if self._own is not None and plan.engine_name == EngineName.OWN:
            root = folder.parent.parent
            group = _group(plan.task)
            return self._own.load(
                plan.engine, folder, root=root, group=group, code=code, **arguments
            )
        engine: Engine = load_name(plan.engine)(folder, **arguments)
        return engine

    def _read_prompt(self, plan: LoadPlan, prompt: Weights) -> PromptDocument:
        """Return the document of a prompt version. Raises InvalidInput and as `copy_version`."""
        folder = self._copy(plan, prompt)
        try:
            return PromptDocument.read((folder / PROMPT_FILE).read_bytes())
        finally:
            shutil.rmtree(folder.parent, ignore_errors=True)

    def _copy(self, plan: LoadPlan, weights: Weights) -> Path:
        """Copy verified files into a new folder. Its parent is shared by one kind of engine, or by
        one task of another package, whose process can read only that parent.
        """
        if self._root is None or not self._root.is_dir():
            # 0700, so that other users cannot change bytes between hashing and loading. Created at
            # the first load, so that a full volume fails only that load.
            self._root = Path(tempfile.mkdtemp(prefix="assay-engines-"))
        group = _group(plan.task)
        root = self._root / (f"task-{group}" if group else plan.engine_name)
        root.mkdir(mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=root)) / "files"
        try:
            self._control.copy_version(plan.deployment_id, weights.manifest, folder)
        except BaseException:
            shutil.rmtree(folder.parent, ignore_errors=True)
            raise
        return folder

    def _remove_user(self, key: _EngineKey, deployment_id: int) -> None:
        """Remove a deployment from its engine; close the engine if no other deployment uses it."""
        with self._lock:
            hosted = self._engines[key]
            hosted.users.discard(deployment_id)
            if hosted.users:
                return
            del self._engines[key]
        hosted.engine.close()
        shutil.rmtree(hosted.folder, ignore_errors=True)
