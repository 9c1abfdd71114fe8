"""Where each surface is mounted. `/v1/*` never comes here: `assay.asgi` hands it to the gateway."""

from __future__ import annotations

urlpatterns: list[object] = []
