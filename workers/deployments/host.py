"""Interface of an engine worker's engines, as its `Reconciler` drives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, Protocol

from workers.control.protocol import LoadPlan, ReferenceRequest


class Host(Protocol):
    """Holds engines. `load` blocks until the deployment can answer; `unload` may run meanwhile."""

    def loaded(self) -> dict[int, str]:
        """Deployment ids, each with the digest that was hashed while loading."""

    def load(self, plan: LoadPlan) -> str:
        """Copy with verification, load, and return the digest of what was loaded.

        Raises:
            ManifestMismatch: the bytes differ from the manifest; the message names the file.
            CodeDiffers: the packages of the task that run here are not those of the plan.
            Exception: anything else is trouble of this worker, such as no memory or no volume.
        """

    def answers(
        self,
        deployment_id: int,
        requests: Sequence[ReferenceRequest],
        opened: Callable[[str], BytesIO],
    ) -> list[dict[str, Any]]:
        """Answers to requests, for a comparison; `opened` returns a file by its SHA-256."""

    def code(self, deployment_id: int) -> str:
        """Digest of the packages of its task that answer for a loaded deployment."""

    def faults(self) -> dict[int, str]:
        """Deployment ids whose engine has ended by itself, each with the reason."""

    def unload(self, deployment_id: int) -> None:
        """Let go of it, if it is loaded; requests that still run on it fail."""

    def lease(self, until: Mapping[int, float]) -> None:
        """Answer for these deployments alone, each until then on the monotonic clock."""
