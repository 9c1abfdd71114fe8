"""Releases: request one, see it, withdraw, deploy or renew it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect

from assay.downloads import dossier_file, evidence_file
from assay.portal.access import may
from assay.portal.forms.dossier import DossierForms
from assay.portal.forms.releases import ReleaseForm, RiskForm, initial_of, initial_of_draft
from assay.portal.http import ActionScreen, Screen, cleaned, number_in
from assay.portal.lists import ListScreen
from assay.portal.readiness import Panel, may_see_readiness, readiness_panel
from governance.errors import NotFound
from governance.people.models import Department
from governance.permissions import Action
from governance.reviews.policies.selectors import review_policies_in_force
from registry.incidents.selectors import incidents_of
from registry.releases.carrying import renewal_obstacle
from registry.releases.drafts.models import RETENTION_DAYS, ReleaseDraft
from registry.releases.drafts.selectors import release_draft_get, release_drafts_visible_to
from registry.releases.drafts.services import (
    release_draft_create,
    release_draft_delete,
    release_draft_submit,
    release_draft_update,
)
from registry.releases.emergency_access.force import serving_end
from registry.releases.emergency_access.selectors import emergency_accesses_of
from registry.releases.engines import engines_for
from registry.releases.equivalence.selectors import release_checks
from registry.releases.logged_requests import log_resource_of
from registry.releases.models import Release, ReleaseState
from registry.releases.renewal import (
    HISTORY_SHOWN,
    release_history,
    release_renew,
    release_renewal,
    renewal_preview,
)
from registry.releases.risk import QUESTIONS
from registry.releases.selectors import release_get, release_review, releases_to_copy
from registry.releases.services import release_submit, release_withdraw
from registry.releases.software import code_changed
from registry.releases.tiers import minimum_tier_get
from registry.versions.models import ModelVersion, VersionState
from registry.versions.selectors import version_get
from workers.deployments.preview import deployment_preview
from workers.deployments.selectors import deployments_visible_to
from workers.deployments.services import deployment_create
from workers.deployments.states import LIVE

COPIES_OFFERED = 20


class ReleaseNew(ActionScreen):
    """The release request for a version."""

    template_name = "portal/models/release_new.html"

    def pattern(self, version: ModelVersion) -> Release | None:
        """Return the release that `?like=` names, to copy its answers."""
        number = number_in(self.request.GET, "like")
        rows = releases_to_copy(self.actor, version)
        return None if number is None else rows.filter(pk=number).first()

    def draft(self, version: ModelVersion) -> ReleaseDraft | None:
        """Return the draft of the version that the address or the form names.

        Raises:
            NotFound: there is none, or the person may not see it.
        """
        number = number_in(self.request.POST, "draft") or number_in(self.request.GET, "draft")
        if number is None:
            return None
        draft = release_draft_get(actor=self.actor, id=number)
        if draft.version_id != version.pk:
            raise NotFound(f"Release draft {draft.pk} is not of {version}.")
        return draft

    def form(
        self,
        version: ModelVersion,
        like: Release | None = None,
        draft: ReleaseDraft | None = None,
    ) -> ReleaseForm:
        initial = {
            "deployment_name": version.model.name,
            "departments": [version.model.department_id],
            **({} if like is None else initial_of(like, version)),
            **({} if draft is None else initial_of_draft(draft)),
        }
        if tier := self.request.GET.get("tier", ""):
            initial["tier"] = tier
        departments = Department.objects.all()
        return ReleaseForm(
            self.request.POST or None,
            departments=departments,
            policies=review_policies_in_force(),
            engines=engines_for(version),
            initial=initial,
        )

    def panel(self, version: ModelVersion, form: ReleaseForm) -> Panel | None:
        """Return the readiness panel, for people who may see releases of the department."""
        if not may_see_readiness(self.actor, version):
            return None
        tier = str(form["tier"].value() or "")
        tiers = dict(form.fields["tier"].choices)  # type: ignore[attr-defined]
        return readiness_panel(self.actor, version, tier if tier in tiers else "")

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        version = version_get(actor=self.actor, id=id)
        like = self.pattern(version)
        draft = self.draft(version)
        form = self.form(version, like, draft)
        if self.saves:
            form.lenient()
        before = None if like is None else like.dossier_fields
        if draft is not None:
            before = draft.content.get("dossier_fields")
        return {
            "version": version,
            "like": like,
            "earlier": releases_to_copy(self.actor, version)[:COPIES_OFFERED] if not draft else [],
            "draft": draft,
            # The input is based on the draft's revision when the page was opened.
            "revision": self.revision or (draft and draft.revision),
            "releasable": version.state == VersionState.TRUSTED,
            "form": form,
            "dossier": DossierForms(self.request.POST or None, before),
            "panel": self.panel(version, form),
            "beside_form": True,
        }

    @property
    def saves(self) -> bool:
        """True if the form is to be saved as a draft."""
        return self.request.POST.get("save") == "draft"

    @property
    def revision(self) -> int | None:
        """Return the draft's revision that the form was opened with."""
        return number_in(self.request.POST, "revision")

    def content(self, form: ReleaseForm) -> dict[str, Any]:
        """Return the answers of the form as a draft stores them."""
        fields = DossierForms(self.request.POST).fields()
        return {**form.content(), **({} if fields is None else {"dossier_fields": fields})}

    def save(self, version: ModelVersion, draft: ReleaseDraft | None) -> HttpResponse:
        """Save the answers so far as a draft."""
        content = self.content(self.form(version).lenient())
        if draft is None:
            draft = release_draft_create(actor=self.actor, version=version, content=content)
        else:
            draft = release_draft_update(
                actor=self.actor, draft_id=draft.pk, content=content, revision=self.revision
            )
        return self.done(
            "The draft is saved. Nothing is submitted.",
            "portal:release_new",
            id=version.pk,
            query={"draft": draft.pk},
        )

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        version = version_get(actor=self.actor, id=id)
        draft = self.draft(version)
        if self.saves:
            return self.save(version, draft)
        if draft is None:
            release = self.submit(version)
        else:
            content = self.content(self.form(version))
            release = release_draft_submit(
                actor=self.actor, draft_id=draft.pk, content=content, revision=self.revision
            )
        review = release_review(release)
        messages.success(self.request, "The dossier is frozen and the review is open.")
        if review is None:
            return redirect("portal:release", id=release.pk)
        return redirect("portal:review", id=review.pk)

    def submit(self, version: ModelVersion) -> Release:
        """Request the release that the form describes."""
        values = cleaned(self.form(version))
        answers = {name: values.pop(name) for name in ReleaseForm.RISK}
        values["departments"] = list(values["departments"])
        return release_submit(
            actor=self.actor,
            version=version,
            risk_answers={"intended_purpose": values["purpose"], **answers},
            dossier_fields=DossierForms(self.request.POST).fields(),
            **values,
        )


class ReleaseDrafts(ListScreen):
    """Unsubmitted requests of the departments in which the person may submit."""

    template_name = "portal/models/release_drafts.html"
    title = "Release drafts"
    lead = "Release requests that are not submitted. They are not reviewed, and permit nothing."
    columns = "Version | Where | Department | Last changed | …"

    def rows(self) -> QuerySet[ReleaseDraft]:
        return release_drafts_visible_to(self.actor)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {**super().context(**kwargs), "kept_days": RETENTION_DAYS}


class ReleaseDraftDelete(ReleaseDrafts, ActionScreen):
    """Delete a draft."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        release_draft_delete(actor=self.actor, draft_id=id)
        return self.done("The draft is deleted.", "portal:release_drafts")


class ReleaseTier(Screen):
    """Minimum tier for these answers, and why; shown while the form is filled in."""

    template_name = "portal/models/release_tier.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        query = self.request.GET
        unanswered = sum(not query.get(question) for question in QUESTIONS)
        if unanswered:
            return {"unanswered": unanswered}
        answers = cleaned(RiskForm(query))
        return {"least": minimum_tier_get(actor=self.actor, answers=answers)}


class ReleasePage(ActionScreen):
    """One release: its state, approvers, terms and deployments."""

    template_name = "portal/models/release.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        release = release_get(actor=self.actor, id=id)
        department = release.department.slug
        waiting = release.state in (ReleaseState.IN_REVIEW, ReleaseState.CHANGES_REQUESTED)
        deployments = list(deployments_visible_to(self.actor).filter(release=release))
        live = any(deployment.state in LIVE for deployment in deployments)
        emergencies = list(emergency_accesses_of(release)[:10])
        is_open = any(emergency.state in ("requested", "active") for emergency in emergencies)
        return {
            "release": release,
            "emergencies": emergencies,
            "incidents": incidents_of(self.actor, release.version_id),
            "may_emergency_access": waiting
            and not is_open
            and may(
                self.actor, Action.RELEASE_EMERGENCY_ACCESS, kind="release", department=department
            ),
            "review": release_review(release),
            "deployments": deployments,
            "renewal": release_renewal(actor=self.actor, release=release),
            "checks": release_checks(release),
            "code_difference": code_changed(release)
            if release.state == ReleaseState.APPROVED
            else "",
            "may_renew": renewal_obstacle(release) is None
            and may(self.actor, Action.RELEASE_SUBMIT, kind="release", department=department),
            "may_deploy": serving_end(release) is not None
            and not live
            and may(self.actor, Action.DEPLOYMENT_CREATE, kind="deployment", department=department),
            "may_read_requests": may(
                self.actor,
                Action.REQUEST_LOG_VIEW,
                kind="request_log",
                department=department,
                attributes=log_resource_of(release, self.actor).attributes,
            ),
            "may_pack": may(
                self.actor, Action.RELEASE_EVIDENCE, kind="release", department=department
            ),
            "may_answer": release.state == ReleaseState.CHANGES_REQUESTED
            and may(self.actor, Action.RELEASE_SUBMIT, kind="release", department=department),
            "may_withdraw": waiting
            and may(self.actor, Action.RELEASE_WITHDRAW, kind="release", department=department),
        }


class ReleaseEvidence(Screen):
    """Download the evidence pack."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return evidence_file(self.actor, kwargs["id"])


class ReleaseExport(Screen):
    """Download the dossier in one format."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return dossier_file(self.actor, release_id=kwargs["id"], file_format=kwargs["file_format"])


class ReleaseWithdraw(ReleasePage):
    """Withdraw a release request."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        reason = self.request.POST.get("reason", "").strip()
        release_withdraw(actor=self.actor, release_id=id, reason=reason)
        return self.done("The request is withdrawn.", "portal:release", id=id)


class ReleaseDeploy(ActionScreen):
    """Preview of a deployment, and the button that deploys the release."""

    template_name = "portal/deployments/deploy.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        preview = deployment_preview(actor=self.actor, release_id=id)
        department = preview.release.department.slug
        return {
            "preview": preview,
            "release": preview.release,
            "may_deploy": not preview.obstacle
            and may(self.actor, Action.DEPLOYMENT_CREATE, kind="deployment", department=department),
        }

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        release = release_get(actor=self.actor, id=id)
        deployment = deployment_create(actor=self.actor, release_id=release.pk)
        return redirect("portal:deployment", id=deployment.pk)


class ReleaseRenewal(ActionScreen):
    """Submit a release again, after a preview."""

    template_name = "portal/models/renewal.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        preview = renewal_preview(actor=self.actor, release_id=id)
        history = release_history(actor=self.actor, release=preview.release)
        return {
            "preview": preview,
            "release": preview.release,
            "history": history[:HISTORY_SHOWN],
        }

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        release = release_renew(actor=self.actor, release_id=id)
        messages.success(self.request, "Submitted again with a fresh dossier.")
        review = release_review(release)
        if review is None:
            return redirect("portal:release", id=release.pk)
        return redirect("portal:review", id=review.pk)
