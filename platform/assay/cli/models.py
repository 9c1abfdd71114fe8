"""`assay models [NAME]`: list models, or show one."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.client import Client
from assay.cli.options import Limit
from assay.cli.output import console, facts, state, table


def models(
    name: Annotated[str | None, typer.Argument(help="Model to show with its versions.")] = None,
    limit: Limit = 100,
) -> None:
    """List models, or show one with its versions."""
    client = Client.signed_in()
    if name is None:
        rows = client.all("models", limit=limit)
        table(
            ("name", "task", "department", "shared", "created"),
            (
                (
                    model["name"],
                    model["task"],
                    model["department"],
                    "yes" if model["shared"] else "",
                    model["created_at"],
                )
                for model in rows
            ),
            empty="No models that you may see.",
        )
        return
    model = client.get(f"models/{name}")
    facts((key, model[key]) for key in ("name", "task", "department", "description"))
    console.print()
    table(
        ("id", "version", "kind", "state", "digest", "base", "metrics", "created"),
        (
            (
                version["id"],
                f"v{version['number']}",
                version["kind"],
                state(version["state"]),
                version["digest"][:12],
                version["base"]["name"] if version["base"] else "",
                _metrics(version["metrics"]),
                version["created_at"],
            )
            for version in client.all(f"models/{name}/versions", limit=limit)
        ),
        empty="No versions yet.",
    )


def _metrics(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in list(metrics.items())[:3])
