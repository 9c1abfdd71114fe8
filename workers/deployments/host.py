"""Interface through which a `Reconciler` controls the engines of its worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, Protocol

from workers.control.protocol import LoadPlan, ReferenceRequest


class Host(Protocol):
    """Owns engines. `load` blocks until the deployment can answer; `unload` may run meanwhile."""

    def loaded(self) -> dict[int, str]:
        """Return loaded deployment IDs, each with the digest computed while loading."""

    def load(self, plan: LoadPlan) -> str:
        """Copy and verify the bytes, load them, and return their digest.

        Raises:
            ManifestMismatch: the bytes differ from the manifest; the message names the file.
            CodeDiffers: the packages of the task on this worker differ from those of the plan.
            Exception: this worker lacks something, such as memory or its volume.
        """

    def answers(
        self,
        deployment_id: int,
        requests: Sequence[ReferenceRequest],
        opened: Callable[[str], BytesIO],
    ) -> list[dict[str, Any]]:
        """Answer requests for a comparison; `opened` returns a file by its SHA-256."""

    def code(self, deployment_id: int) -> str:
        """Return the digest of the task's packages that answer for a loaded deployment."""

    def faults(self) -> dict[int, str]:
        """Return IDs of deployments whose engine has ended by itself, each with the reason."""

    def unload(self, deployment_id: int) -> None:
        """Unload a deployment if it is loaded; its running requests fail."""

    def lease(self, until: Mapping[int, float]) -> None:
        """Answer only for these deployments, each until its time on the monotonic clock."""
