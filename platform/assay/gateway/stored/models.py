"""`/v1/models`: the deployments that a key may see, in OpenAI's and Anthropic's format."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from assay.gateway.access.decisions import model_unknown, visible_deployments
from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.stored.requests import OwnRequest, answer_json
from registry.catalog.routes import deployment_path

PATH = "/v1/models"
# A single one, so that lists take no more than their share of the interpreter.
_thread = ThreadPoolExecutor(1, thread_name_prefix="assay-models")


async def page(request: OwnRequest) -> None:
    """Answer with every model that the key may see."""
    # With thousands of deployments it takes a second, in which other requests go on.
    models = await asyncio.get_running_loop().run_in_executor(
        _thread, _visible, request, request.snapshot.deployments.keys()
    )
    ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
    # The last three fields are Anthropic's.
    listed = {"first_id": None, "last_id": None, **ends, "has_more": False}
    await answer_json(request, {"object": "list", "data": models, **listed})


async def show(request: OwnRequest) -> None:
    """Answer with one model. Raises ModelUnknown."""
    request.call.requested_model = request.id
    models = _visible(request, {request.id})
    if not models:
        raise model_unknown(request.id)
    await answer_json(request, models[0])


def _visible(request: OwnRequest, names: Set[str]) -> list[dict[str, object]]:
    visible = visible_deployments(
        request.snapshot, request.key, request.caller.circumstances, names
    )
    return [_model(entry, usable) for entry, usable in visible]


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
