"""Input about nodes."""

from __future__ import annotations

from pydantic import Field

from governance.schemas import Filter, Line, LineOrEmpty, Schema
from workers.control.messages import NODE_NAME_MAX
from workers.nodes.models import REASON_MAX, NodeState


class NodeFilter(Filter):
    """Filters of the list."""

    state: NodeState | None = None


class NewNode(Schema):
    """Name for the machine."""

    name: Line = Field(max_length=NODE_NAME_MAX)


class NodeReason(Schema):
    """Reason for the change, which the audit log keeps."""

    reason: LineOrEmpty = Field(default="", max_length=REASON_MAX)
