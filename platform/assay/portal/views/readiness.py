"""The page that says what a release of a version needs."""

from __future__ import annotations

from typing import Any

from assay.portal.access import may
from assay.portal.http import Screen
from assay.portal.readiness import readiness_panel
from governance.permissions import Action
from registry.versions.models import VersionState
from registry.versions.selectors import version_get


class VersionReadiness(Screen):
    """Readiness of one version for release, under the tier of `?tier=`."""

    template_name = "portal/models/readiness.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        version = version_get(actor=self.actor, id=id)
        department = version.model.department.slug
        return {
            "version": version,
            "panel": readiness_panel(self.actor, version, self.request.GET.get("tier", "")[:40]),
            "beside_form": "form" in self.request.GET,
            "may_release": version.state == VersionState.TRUSTED
            and may(self.actor, Action.RELEASE_SUBMIT, kind="release", department=department),
        }
