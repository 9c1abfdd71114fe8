"""Input schemas for nodes."""

from __future__ import annotations

from pydantic import Field

from governance.schemas import Filter, Line, LineOrEmpty, Schema
from workers.control.messages import NODE_NAME_MAX
from workers.nodes.models import REASON_MAX, NodeState


class NodeFilter(Filter):
    """Filters of the list of nodes."""

    state: NodeState | None = None


class NewNode(Schema):
    """Name for a new node."""

    name: Line = Field(max_length=NODE_NAME_MAX)


class NodeReason(Schema):
    """Reason for a change, recorded in the audit log."""

    reason: LineOrEmpty = Field(default="", max_length=REASON_MAX)
