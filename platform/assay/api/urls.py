"""The addresses below `/api/v1/`."""

from __future__ import annotations

from django.urls import path, register_converter
from django.urls.converters import IntConverter

from assay.api.views import (
    audit,
    datasets,
    deployments,
    evaluations,
    intakes,
    jobs,
    keys,
    models,
    people,
    policy,
    policy_inquiries,
    quotas,
    releases,
    roles,
    session,
    usage,
)


class RowIdConverter(IntConverter):
    """A row's id: what PostgreSQL could not hold is no address."""

    regex = "[1-9][0-9]{0,17}"


register_converter(RowIdConverter, "id")

app_name = "api"
urlpatterns = [
    path("auth/token", session.TokenView.as_view()),
    path("me", session.MeView.as_view()),
    path("sessions", session.SessionsView.as_view()),
    path("sessions/<id:session_id>", session.SessionView.as_view()),
    path("departments", people.DepartmentsView.as_view()),
    path("departments/<slug:slug>", people.DepartmentView.as_view()),
    path("people", people.PeopleView.as_view()),
    path("people/<id:person_id>", people.PersonView.as_view()),
    path("people/<id:person_id>/deactivate", people.PersonDeactivateView.as_view()),
    path("people/<id:person_id>/reactivate", people.PersonReactivateView.as_view()),
    path("people/<id:person_id>/roles", roles.PersonRolesView.as_view()),
    path("people/<id:person_id>/roles/<id:assignment_id>", roles.PersonRoleView.as_view()),
    path("groups", roles.GroupsView.as_view()),
    path("group-mappings", roles.GroupMappingsView.as_view()),
    path("group-mappings/<id:mapping_id>", roles.GroupMappingView.as_view()),
    path("keys", keys.KeysView.as_view()),
    path("keys/leaked", keys.KeyLeakedView.as_view()),
    path("keys/<id:key_id>", keys.KeyView.as_view()),
    path("keys/<id:key_id>/rotate", keys.KeyRotateView.as_view()),
    path("keys/<id:key_id>/revoke", keys.KeyRevokeView.as_view()),
    path("quotas", quotas.QuotasView.as_view()),
    path("quotas/effective", quotas.EffectiveQuotasView.as_view()),
    path("quotas/alerts", quotas.AlertsView.as_view()),
    path("quotas/reconcile", quotas.ReconcileView.as_view()),
    path("prices", quotas.PricesView.as_view()),
    path("policy", policy.PolicyView.as_view()),
    path("policy/explain", policy_inquiries.PolicyExplainView.as_view()),
    path("policy/explain/events/<id:event_id>", policy_inquiries.PolicyExplainEventView.as_view()),
    path("policy/who-can", policy_inquiries.PolicyWhoCanView.as_view()),
    path("policy/versions", policy.PolicyVersionsView.as_view()),
    path("policy/versions/<id:number>", policy.PolicyVersionView.as_view()),
    path("policy/versions/<id:number>/document", policy.PolicyDocumentView.as_view()),
    path("policy/versions/<id:number>/tests", policy.PolicyTestsView.as_view()),
    path("policy/versions/<id:number>/diff", policy.PolicyDifferenceView.as_view()),
    path("policy/versions/<id:number>/replay", policy.PolicyReplayView.as_view()),
    path("policy/versions/<id:number>/propose", policy.PolicyProposeView.as_view()),
    path("policy/versions/<id:number>/approve", policy.PolicyApproveView.as_view()),
    path("policy/versions/<id:number>/reject", policy.PolicyRejectView.as_view()),
    path("policy/versions/<id:number>/withdraw", policy.PolicyWithdrawView.as_view()),
    path("tasks", models.TasksView.as_view()),
    path("models", models.ModelsView.as_view()),
    path("models/<slug:name>", models.ModelView.as_view()),
    path("models/<slug:name>/versions", models.ModelVersionsView.as_view()),
    path("versions/<id:version_id>", models.VersionView.as_view()),
    path("intakes", intakes.IntakesView.as_view()),
    path("intakes/<id:intake_id>", intakes.IntakeView.as_view()),
    path("intakes/<id:intake_id>/sign-off", intakes.IntakeSignOffView.as_view()),
    path("datasets", datasets.DatasetsView.as_view()),
    path("datasets/<slug:name>", datasets.DatasetView.as_view()),
    path("datasets/<slug:name>/versions", datasets.DatasetVersionsView.as_view()),
    path("gates", evaluations.GatesView.as_view()),
    path("fine-tunes", evaluations.FineTunesView.as_view()),
    path("evaluations", evaluations.EvaluationsView.as_view()),
    path("evaluations/<id:evaluation_id>", evaluations.EvaluationView.as_view()),
    path("jobs", jobs.JobsView.as_view()),
    path("jobs/<uuid:job_id>", jobs.JobView.as_view()),
    path("jobs/<uuid:job_id>/events", jobs.JobEventsView.as_view()),
    path("jobs/<uuid:job_id>/cancel", jobs.JobCancelView.as_view()),
    path("releases", releases.ReleasesView.as_view()),
    path("releases/<id:release_id>", releases.ReleaseView.as_view()),
    path("releases/<id:release_id>/dossier", releases.DossierView.as_view()),
    path("releases/<id:release_id>/decisions", releases.DecisionsView.as_view()),
    path("releases/<id:release_id>/answers", releases.AnswersView.as_view()),
    path("releases/<id:release_id>/checklist/<slug:code>", releases.ChecklistItemView.as_view()),
    path("releases/<id:release_id>/withdraw", releases.WithdrawView.as_view()),
    path("reviews", releases.ReviewsView.as_view()),
    path("deployments", deployments.DeploymentsView.as_view()),
    path("deployments/<id:deployment_id>", deployments.DeploymentView.as_view()),
    path("deployments/<id:deployment_id>/stop", deployments.DeploymentStopView.as_view()),
    path("usage", usage.UsageView.as_view()),
    path("usage/days", usage.UsageDaysView.as_view()),
    path("audit/events", audit.AuditEventsView.as_view()),
    path("audit/export", audit.AuditExportView.as_view()),
    path("audit/checkpoint", audit.AuditCheckpointView.as_view()),
]
