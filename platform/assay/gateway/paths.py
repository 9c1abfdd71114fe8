"""Paths that the gateway answers itself, with their actions.

Tasks declare paths below `/v1/` and `/v2/` (`registry.catalog.checks.declaration`), which
`assay.asgi` routes only to the gateway, so a task cannot take a path of the portal or the API.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from assay.gateway.http.asgi import read_body
from assay.gateway.stored import batches, chats, feedback, files, models, responses, vector_stores
from assay.gateway.stored.requests import OwnRequest, answer_json
from governance.permissions import Action
from registry.catalog import set_path_check
from registry.responses.selectors import CHAT

# Placeholder for the name of a deployment after a path.
_NAME = "deployment"


async def _take_feedback(request: OwnRequest) -> None:
    call, limit = request.call, feedback.BODY_MAX_BYTES
    body = await read_body(request.scope, request.receive, limit, ("application/json",))
    desk = request.desks.feedback
    answer, created = await desk.take(request.key, body, call.request_id, call.client_address)
    await answer_json(request, answer, recorded=created, status=201 if created else 200)


@dataclass(frozen=True, slots=True)
class Operation:
    """Action of a request, and the function that answers and records it or raises DomainError."""

    action: Action
    answer: Callable[[OwnRequest], Awaitable[None]]


# By path, in the form used by metrics and the ledger, and by method.
_OPERATIONS: Mapping[str, Mapping[str, Operation]] = {
    models.PATH: {"GET": Operation(Action.DEPLOYMENT_VIEW, models.page)},
    f"{models.PATH}/{{id}}": {"GET": Operation(Action.DEPLOYMENT_VIEW, models.show)},
    feedback.PATH: {"POST": Operation(Action.FEEDBACK_CREATE, _take_feedback)},
    vector_stores.PATH: {"GET": Operation(Action.KNOWLEDGE_VIEW, vector_stores.page)},
    f"{vector_stores.PATH}/{{id}}": {"GET": Operation(Action.KNOWLEDGE_VIEW, vector_stores.show)},
    f"{vector_stores.PATH}/{{id}}/search": {
        "POST": Operation(Action.KNOWLEDGE_SEARCH, vector_stores.search)
    },
    f"{responses.PATH}/{{id}}": {
        "GET": Operation(Action.RESPONSE_VIEW, responses.show),
        "DELETE": Operation(Action.RESPONSE_DELETE, responses.delete),
    },
    f"{responses.PATH}/{{id}}/input_items": {
        "GET": Operation(Action.RESPONSE_VIEW, responses.items)
    },
    files.PATH: {
        "GET": Operation(Action.FILE_VIEW, files.page),
        "POST": Operation(Action.FILE_CREATE, files.upload),
    },
    f"{files.PATH}/{{id}}": {
        "GET": Operation(Action.FILE_VIEW, files.show),
        "DELETE": Operation(Action.FILE_DELETE, files.delete),
    },
    f"{files.PATH}/{{id}}/content": {"GET": Operation(Action.FILE_VIEW, files.download)},
    batches.PATH: {
        "GET": Operation(Action.BATCH_VIEW, batches.page),
        "POST": Operation(Action.BATCH_CREATE, batches.create),
    },
    f"{batches.PATH}/{{id}}": {"GET": Operation(Action.BATCH_VIEW, batches.show)},
    f"{batches.PATH}/{{id}}/cancel": {"POST": Operation(Action.BATCH_CANCEL, batches.cancel)},
    chats.PATH: {"GET": Operation(Action.RESPONSE_VIEW, chats.page)},
    f"{chats.PATH}/{{id}}": {
        "GET": Operation(Action.RESPONSE_VIEW, chats.show),
        "POST": Operation(Action.RESPONSE_UPDATE, chats.update),
        "DELETE": Operation(Action.RESPONSE_DELETE, chats.delete),
    },
    f"{chats.PATH}/{{id}}/messages": {"GET": Operation(Action.RESPONSE_VIEW, chats.messages)},
}
# Patterns of IDs, if not every text without a slash is valid.
_IDS = {models.PATH: ".*", responses.PATH: "resp_[^/]*", chats.PATH: f"{CHAT}[^/]*"}


def _pattern(label: str) -> str:
    base, _, rest = label.partition("/{id}")
    id_ = _IDS.get(base, "[^/]+") if label != base else ""
    return f"({re.escape(base)}(?:/({id_})){re.escape(rest)})" if id_ else f"({re.escape(base)}())"


# Two groups for each path: the path, and the ID in it.
_PATHS = re.compile("|".join(map(_pattern, _OPERATIONS)), re.DOTALL)
_LABELS = tuple(_OPERATIONS)


@dataclass(frozen=True, slots=True)
class GatewayPath:
    """A path of the gateway: its name in metrics and the ledger, the ID in it, its operations."""

    label: str
    id: str
    operations: Mapping[str, Operation]


def own_path(method: str, path: str) -> GatewayPath | None:
    """Return the gateway's own path for a request; None for paths of tasks and others."""
    match = _PATHS.fullmatch(path)
    # Chats are listed under the path at which a task answers them.
    if match is None or (path == chats.PATH and method != "GET"):
        return None
    index = match.lastindex or 1
    label = _LABELS[index // 2]
    return GatewayPath(label, match[index + 1], _OPERATIONS[label])


def own_paths() -> tuple[str, ...]:
    """Return the path that each group of paths begins with."""
    return tuple(dict.fromkeys(label.partition("/{id}")[0] for label in _OPERATIONS))


def own_label(method: str, path: str) -> str:
    """Return the name of the gateway's own path in metrics and the ledger; empty for paths of tasks
    and others."""
    own = own_path(method, path)
    return "" if own is None else own.label


def answered_by(path: str, named: bool) -> str:
    """Return the component that answers `path`, or with `named` the path followed by a deployment;
    empty if a task may have it. Imports nothing, because it is called during discovery."""
    for each in (path, f"{path}/{_NAME}") if named else (path,):
        if any(own_label(method, each) for method in ("GET", "POST")):
            return "the gateway"
    return ""


def keep_paths() -> None:
    """Reserve these paths against tasks of other packages. Call it before tasks are discovered."""
    set_path_check(answered_by)
