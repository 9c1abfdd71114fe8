"""`/v1/models`: the deployments that a key may see, in OpenAI's and Anthropic's format."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

from assay.gateway.access.decisions import model_unknown, visible_deployments
from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.stored.requests import OwnRequest, answer_json
from registry.catalog.routes import deployment_path

PATH = "/v1/models"


async def page(request: OwnRequest) -> None:
    """Answer with every model that the key may see."""
    models = [_model(entry, usable) for entry, usable in _visible(request)]
    ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
    # The last three fields are Anthropic's.
    listed = {"first_id": None, "last_id": None, **ends, "has_more": False}
    await answer_json(request, {"object": "list", "data": models, **listed})


async def show(request: OwnRequest) -> None:
    """Answer with one model. Raises ModelUnknown."""
    request.call.requested_model = request.id
    for entry, usable in _visible(request):
        if entry.name == request.id:
            await answer_json(request, _model(entry, usable))
            return
    raise model_unknown(request.id)


def _visible(request: OwnRequest) -> list[tuple[DeploymentEntry, bool]]:
    return visible_deployments(request.snapshot, request.key, request.caller.circumstances)


def _model(entry: DeploymentEntry, usable: bool) -> dict[str, object]:
    return {
        "id": entry.name,
        "object": "model",
        "created": int(entry.created_at),
        "owned_by": entry.department,
        "task": entry.task,
        "endpoint": deployment_path(entry.task, entry.name),
        "release": entry.release,
        "digest": entry.digest,
        "usable": usable,
        "ready": entry.ready_until > time.time(),
        # Anthropic's.
        "type": "model",
        "display_name": entry.name,
        "created_at": _moment(entry.created_at),
        "lifecycle": "active",
        "retires_at": _moment(entry.expires_at) if math.isfinite(entry.expires_at) else None,
    }


def _moment(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()
