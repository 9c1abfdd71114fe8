"""A version's lineage as a drawing, in columns from its data and base to its deployments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from governance.database.narrow import narrowed
from governance.principals import Principal
from registry.versions.models import ModelVersion
from registry.versions.selectors import lineage
from workers.deployments.selectors import deployments_visible_to

WIDTH, HEIGHT, GAP_X, GAP_Y = 190, 58, 56, 16
KINDS = {
    "feedback": "feedback",
    "dataset_version": "data",
    "version": "version",
    "release": "release",
    "deployment": "deployment",
}
NODES_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Node:
    """One box; `x` and `y` are its top left corner, in the drawing's units."""

    kind: str
    name: str
    note: str
    url: str
    here: bool
    x: int
    y: int


def _url(node: dict[str, Any]) -> str:
    kind, _, pk = str(node["id"]).partition(":")
    if kind == "feedback":
        return f"{reverse('portal:feedback')}?data={pk}"
    if kind == "dataset_version":
        return reverse("portal:dataset", args=[str(node["name"]).rsplit(" v", 1)[0]])
    return reverse(f"portal:{kind}", args=[int(pk)])


def _graph(
    version: ModelVersion, actor: Principal
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    graph = lineage(version, actor=actor)
    nodes = graph["nodes"][:NODES_SHOWN]
    edges = [(edge["from"], edge["to"]) for edge in graph["edges"]]
    releases = [int(n["id"].split(":")[1]) for n in nodes if n["type"] == "release"]
    rows = deployments_visible_to(actor).filter(release_id__in=releases).order_by("release_id")
    for deployment in narrowed(rows, "name", "state", "release"):
        node = {"id": f"deployment:{deployment.pk}", "type": "deployment"}
        nodes.append({**node, "name": deployment.name, "state": deployment.state, "digest": ""})
        edges.append((f"release:{deployment.release_id}", node["id"]))
    ids = {node["id"] for node in nodes}
    return nodes, [edge for edge in edges if edge[0] in ids and edge[1] in ids]


def _columns(nodes: list[dict[str, Any]], edges: list[tuple[str, str]]) -> dict[str, int]:
    """Return each node's column: one to the right of its rightmost predecessor."""
    column = {str(node["id"]): 0 for node in nodes}
    for _ in nodes:
        moved = False
        for start, end in edges:
            if column[end] < column[start] + 1:
                column[end], moved = column[start] + 1, True
        if not moved:
            break
    for start, _ in edges:
        if start.startswith(("dataset_version:", "feedback:")):
            column[start] = max(column[start], min(column[e] for s, e in edges if s == start) - 1)
    return column


def drawing(version: ModelVersion, actor: Principal) -> dict[str, Any]:
    """Return nodes, edge paths and the size of the drawing around `version`."""
    raw, edges = _graph(version, actor)
    column = _columns(raw, edges)
    rows: dict[int, int] = {}
    placed: dict[str, Node] = {}
    for node in raw:
        at = column[node["id"]]
        row = rows.get(at, 0)
        rows[at] = row + 1
        placed[node["id"]] = Node(
            kind=KINDS[node["type"]],
            name=node["name"],
            note=" · ".join(filter(None, [node["state"].replace("_", " "), node["digest"][:10]])),
            url=_url(node),
            here=node["id"] == f"version:{version.pk}",
            x=at * (WIDTH + GAP_X) + 2,
            y=row * (HEIGHT + GAP_Y) + 2,
        )
    paths = []
    for start, end in edges:
        x1, y1 = placed[start].x + WIDTH, placed[start].y + HEIGHT // 2
        x2, y2 = placed[end].x, placed[end].y + HEIGHT // 2
        middle = (x1 + x2) // 2
        paths.append(f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2 - 6} {y2}")
    width = (max(column.values(), default=0) + 1) * (WIDTH + GAP_X) - GAP_X + 4
    height = max(rows.values(), default=1) * (HEIGHT + GAP_Y) - GAP_Y + 4
    return {"nodes": list(placed.values()), "paths": paths, "width": width, "height": height}
