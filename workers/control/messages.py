"""Messages between nodes and the control plane: plans and assignments as JSON, and texts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from governance.errors import InvalidInput
from registry.manifests import Manifest
from workers.control.protocol import Assignment, LoadPlan, Weights

_WEIGHTS = ("weights", "adapter", "prompt")


def one_line(text: str, most: int) -> str:
    """Return at most `most` characters of a text, as one line without control characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:most]


def many_lines(text: str, most: int) -> str:
    """Return at most the last `most` characters of a text, without control characters."""
    kept = (each if each.isprintable() or each in "\n\t" else " " for each in text[-most:])
    return "".join(kept).strip()


def signed_text(challenge: str, name: str) -> bytes:
    """Return the bytes that a node signs to answer a challenge."""
    return f"assay node session 1\n{name}\n{challenge}".encode()


def assignment_to_json(assignment: Assignment) -> dict[str, Any]:
    """Return the assignment as a JSON object."""
    return asdict(assignment)


def assignment_from_json(data: Any) -> Assignment:
    """Read an assignment.

    Raises:
        InvalidInput: `assignment_to_json` would not have written this.
    """
    try:
        return Assignment(
            deployment_id=int(data["deployment_id"]),
            name=str(data["name"]),
            digest=str(data["digest"]),
            lease_s=float(data["lease_s"]),
            recorded=bool(data["recorded"]),
            refusal=str(data["refusal"]),
            leaving=bool(data["leaving"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"This is not an assignment: {error!r}.") from error


def plan_to_json(plan: LoadPlan) -> dict[str, Any]:
    """Return the plan as a JSON object, with the manifests of its files."""
    data = {name: getattr(plan, name) for name in LoadPlan.__slots__}
    data["architectures"] = list(plan.architectures)
    for name in _WEIGHTS:
        weights: Weights | None = data[name]
        data[name] = weights and {
            "name": weights.name,
            "digest": weights.digest,
            "manifest": weights.manifest.to_json(),
        }
    return data


def plan_from_json(data: Any) -> LoadPlan:
    """Read a plan.

    Raises:
        InvalidInput: `plan_to_json` would not have written this, or a manifest does not have its
            digest.
    """
    try:
        parts = {name: _weights(data[name]) for name in _WEIGHTS}
        if parts["weights"] is None:
            raise InvalidInput("This is not a plan: it has no weights.")
        return LoadPlan(
            deployment_id=int(data["deployment_id"]),
            name=str(data["name"]),
            task=str(data["task"]),
            engine=str(data["engine"]),
            runner=str(data["runner"]),
            architectures=tuple(map(str, data["architectures"])),
            digest=str(data["digest"]),
            expires_at=float(data["expires_at"]),
            weights=parts["weights"],
            adapter=parts["adapter"],
            prompt=parts["prompt"],
            engine_name=str(data["engine_name"]),
            dtype=None if data["dtype"] is None else str(data["dtype"]),
            code=str(data["code"]),
            packages=str(data["packages"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"This is not a plan: {error!r}.") from error


def _weights(data: Any) -> Weights | None:
    if data is None:
        return None
    manifest = Manifest.from_json(data["manifest"])
    if manifest.digest != data["digest"]:
        raise InvalidInput("This is not a plan: a manifest does not have its digest.")
    return Weights(name=str(data["name"]), digest=manifest.digest, manifest=manifest)
