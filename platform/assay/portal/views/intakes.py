"""Intakes: the list, findings, and sign-off by a second person."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect

from assay.portal.access import may
from assay.portal.forms.models import IntakeForm
from assay.portal.http import ActionScreen, add_refusal, cleaned
from assay.portal.lists import ListScreen, states
from assay.portal.views.uploads import submitted_uploads, upload_context
from governance.permissions import Action
from registry.intake.models import Intake, IntakeState
from registry.intake.schemas import IntakeFilter
from registry.intake.selectors import intake_get, intakes_visible_to
from registry.intake.services import intake_allow, intake_sign_off
from registry.releases.exports.hosted import NOT_PINNED, hosted_blocks
from registry.uploads.models import UploadKind
from registry.versions.selectors import models_visible_to
from workers.jobs.requests import intake_request
from workers.jobs.selectors import jobs_visible_to
from workers.jobs.training import adapter_bases


class Intakes(ListScreen):
    """Every intake that the person may see."""

    template_name = "portal/models/intakes.html"
    title = "Intakes"
    lead = (
        "Uploaded model files: quarantined, checked, and signed off by a second person or rejected "
        "with the reason."
    )
    columns = "Intake | State | # Checks | License | Uploaded"
    filters = IntakeFilter
    toolbar = (states(IntakeState.choices),)
    creates = (Action.INTAKE_CREATE, "intake")

    def rows(self) -> QuerySet[Intake]:
        return intakes_visible_to(self.actor).select_related(
            "model__department", "submitted_by", "version__model"
        )


class IntakePage(ActionScreen):
    """One intake, and its sign-off."""

    template_name = "portal/models/intake.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        intake = intake_get(actor=self.actor, id=id)
        waiting = intake.state == IntakeState.AWAITING_SIGN_OFF
        allowed = may(
            self.actor,
            Action.INTAKE_SIGN_OFF,
            kind="intake",
            department=intake.model.department.slug,
        )
        own = intake.submitted_by_id == self.actor.person_id
        return {
            "intake": intake,
            "job": jobs_visible_to(self.actor).filter(pk=intake.job_id).first()
            if intake.job_id
            else None,
            "may_sign": waiting and allowed and not own,
            "own": waiting and allowed and own,
            "may_reject": allowed and not own and intake.state == IntakeState.PROBING,
            "tries": intake.probe.tries if intake.state == IntakeState.PROBING else 0,
            "hosted": hosted_blocks(intake.hosted) if intake.hosted else None,
            "not_pinned": NOT_PINNED,
            "failed": sum(not finding.get("passed") for finding in intake.findings),
        }

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        accept = self.request.POST.get("accept") == "yes"
        intake = intake_sign_off(
            actor=self.actor,
            intake_id=id,
            accept=accept,
            reason=self.request.POST.get("reason", "").strip(),
        )
        return self.done(f"Intake {intake.pk} is {intake.state}.", "portal:intake", id=id)


class IntakeNew(ActionScreen):
    """Upload files into quarantine."""

    upload_limit = "INTAKE_MAX_BYTES"
    template_name = "portal/form.html"

    def allow_body(self, **kwargs: Any) -> None:
        intake_allow(actor=self.actor)

    def form(self) -> IntakeForm:
        mine = models_visible_to(self.actor).filter(department__slug__in=self.actor.departments)
        bases = adapter_bases(self.actor)
        if self.request.method == "POST":
            form = IntakeForm(self.request.POST, self.request.FILES, models=mine, bases=bases)
            form.fields["files"].required = not self.request.POST.getlist("uploads")
            add_refusal(form, self.acted)
            return form
        chosen = {"model": mine.filter(name=self.request.GET.get("model", "")).first()}
        return IntakeForm(models=mine, bases=bases, initial=chosen)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {
            "form": self.form(),
            "title": "Upload for checks",
            "lead": "Files stay in quarantine until all checks pass and a second person signs.",
            "submit": "Upload for checks",
            "back": ("portal:intakes", "Intakes"),
            "upload": True,
            **upload_context(self.actor, self.request, UploadKind.INTAKE),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        values = cleaned(self.form())
        values["uploads"] = submitted_uploads(self.request)
        intake, _ = intake_request(actor=self.actor, **values)
        return redirect("portal:intake", id=intake.pk)
