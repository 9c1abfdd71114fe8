"""Health and single sign-on, for those who see the whole platform."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

from assay.accounts.sign_on_status import sign_on_status
from assay.cli.doctor import examine
from assay.portal.http import Screen
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from registry.catalog import TASKS, package_of, refused_entries
from workers.deployments.software import code_differences, live_checks_changed
from workers.jobs.selectors import backlog
from workers.offers.selectors import unoffered_tasks

# An address may hold a user name and a password.
_CREDENTIALS = re.compile(r"//[^/@\s]+@")


class OperatorScreen(Screen):
    """A page about the whole platform. `needs` has the required action and its resource; by
    default, to view nodes."""

    needs: ClassVar[tuple[Action, Resource]] = (Action.NODE_VIEW, Resource("node"))

    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        action, resource = self.needs
        authorize(actor=self.actor, action=action, resource=resource)
        return super().get(request, *args, **kwargs)


class Health(OperatorScreen):
    """Alarms, queues and tasks; the checks of the stores follow in a request of their own."""

    template_name = "portal/operations/health.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        tasks = [(task, package_of(task.name)) for task in TASKS.values()]
        return {
            "queues": backlog(),
            "tasks": tasks,
            "refused": refused_entries(),
            "lacking": unoffered_tasks(),
            "differences": code_differences(),
            "changed": live_checks_changed(),
        }


class HealthChecks(OperatorScreen):
    """Findings of `assay doctor`, as a part of the page; slow if a store does not answer."""

    def page(self, **kwargs: Any) -> HttpResponse:
        findings = [
            {
                "name": finding.name,
                "state": finding.state.name.lower(),
                "detail": _CREDENTIALS.sub("//", finding.detail),
                "fix": finding.fix,
            }
            for finding in examine()
        ]
        counts = Counter(finding["state"] for finding in findings)
        # Failures come first, checks that are not set up last.
        findings.sort(key=lambda finding: ("fails", "works", "off").index(finding["state"]))
        context = {"findings": findings, "counts": counts}
        return render(self.request, "portal/operations/health_checks.html", context)


class SignOnStatus(OperatorScreen):
    """Setup and recent activity of single sign-on and provisioning."""

    template_name = "portal/operations/sign_on.html"
    # Its recent sign-ins come from the audit log.
    needs = (Action.AUDIT_VIEW, Resource("audit"))

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {
            "status": sign_on_status(),
            "name": settings.OIDC_NAME,
            "issuer": _CREDENTIALS.sub("//", settings.OIDC_ISSUER),
            "client_id": settings.OIDC_CLIENT_ID,
            "groups_claim": settings.OIDC_GROUPS_CLAIM,
            "domains": settings.OIDC_EMAIL_DOMAINS,
            "creates": settings.OIDC_CREATE_PEOPLE,
            "provisioned": bool(settings.SCIM_TOKEN),
            "callback": f"{settings.PORTAL_URL}/sign-in/sso/callback",
        }
