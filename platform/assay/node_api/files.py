"""Bytes of what is assigned to a node, by SHA-256, whole or from an offset."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from rest_framework.request import Request

from assay.api.documentation import RANGES, operation
from assay.downloads import stored_file
from assay.node_api.endpoint import NodeEndpoint
from assay.node_api.joining import TAG
from workers.nodes.engine_side import node_file


class NodeFileView(NodeEndpoint):
    """One file of a deployment that is assigned to the node."""

    @operation(TAG, "Bytes of a file, or of one range", **RANGES)
    def get(self, request: Request, deployment_id: int, digest: str) -> HttpResponseBase:
        self.query()
        file = node_file(node=self.node, deployment_id=deployment_id, sha256=digest)
        return stored_file(request._request, file, self.node.name)
