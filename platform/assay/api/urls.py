"""The URLs below `/api/v1/`."""

from __future__ import annotations

from django.urls import path, register_converter
from django.urls.converters import IntConverter, StringConverter

from assay.api.views import (
    absences,
    audit,
    audit_exports,
    audit_filters,
    comparisons,
    credentials,
    dataset_rows,
    datasets,
    deployments,
    emergency_access,
    evaluations,
    feedback,
    incidents,
    intakes,
    jobs,
    keys,
    knowledge,
    models,
    nodes,
    people,
    policy,
    policy_inquiries,
    quotas,
    readiness,
    recoveries,
    release_drafts,
    releases,
    renewals,
    request_log,
    retention,
    review_policies,
    roles,
    run_comparison,
    schedules,
    served,
    session,
    software,
    threads,
    uploads,
    usage,
    waivers,
)


class RowIdConverter(IntConverter):
    """A row's ID. IDs that PostgreSQL could not store match no URL."""

    regex = "[1-9][0-9]{0,17}"


class DigestConverter(StringConverter):
    """A SHA-256 in hexadecimal, here and in the URLs of nodes."""

    regex = "[0-9a-f]{64}"


register_converter(RowIdConverter, "id")
register_converter(DigestConverter, "digest")

app_name = "api"
urlpatterns = [
    path("auth/token", session.TokenView.as_view()),
    *session.routes.urls,
    *people.departments.urls,
    *people.people.urls,
    *recoveries.routes.urls,
    *roles.routes.urls,
    path("people/<id:person_id>/roles", roles.PersonRolesView.as_view()),
    path("group-mappings", roles.GroupMappingsView.as_view()),
    path("keys/leaked", keys.KeyLeakedView.as_view()),
    *keys.routes.urls,
    *credentials.routes.urls,
    path("requests", request_log.RequestsView.as_view()),
    path("releases/<id:release_id>/requests", request_log.ReleaseRequestsView.as_view()),
    path("requests/export", request_log.RequestsExportView.as_view()),
    *request_log.routes.urls,
    path("quotas", quotas.QuotasView.as_view()),
    *quotas.routes.urls,
    path("prices", quotas.PricesView.as_view()),
    *policy.routes.urls,
    *policy_inquiries.routes.urls,
    *review_policies.routes.urls,
    *models.routes.urls,
    *models.versions.urls,
    path("versions/<id:version_id>/comparison", comparisons.VersionComparisonView.as_view()),
    *readiness.routes.urls,
    path("versions/<id:version_id>/files/<digest:digest>", models.VersionFileView.as_view()),
    *incidents.routes.urls,
    *emergency_access.routes.urls,
    path("intakes", intakes.IntakesView.as_view()),
    *intakes.routes.urls,
    *knowledge.routes.urls,
    *knowledge.documents.urls,
    path("knowledge-bases/<slug:name>/documents", knowledge.KnowledgeDocumentsView.as_view()),
    *datasets.routes.urls,
    path("datasets/<slug:name>/versions", datasets.DatasetVersionsView.as_view()),
    *dataset_rows.routes.urls,
    *feedback.routes.urls,
    path("uploads", uploads.UploadsView.as_view()),
    path("uploads/<uuid:upload_id>", uploads.UploadView.as_view()),
    *evaluations.routes.urls,
    *evaluations.fine_tunes.urls,
    *jobs.routes.urls,
    *run_comparison.routes.urls,
    *software.routes.urls,
    path("nodes", nodes.NodesView.as_view()),
    *nodes.routes.urls,
    *retention.routes.urls,
    *release_drafts.routes.urls,
    *schedules.routes.urls,
    *releases.routes.urls,
    *comparisons.routes.urls,
    path("releases/<id:release_id>/evidence", releases.EvidenceView.as_view()),
    path(
        "releases/<id:release_id>/export/<slug:file_format>",
        releases.ReleaseExportView.as_view(),
    ),
    *waivers.routes.urls,
    *threads.assignees.urls,
    path("releases/<id:release_id>/drafts", threads.DraftsView.as_view()),
    path("releases/<id:release_id>/drafts/<id:draft_id>", threads.DraftView.as_view()),
    path("releases/<id:release_id>/threads", threads.ThreadsView.as_view()),
    path("releases/<id:release_id>/threads/<id:thread_id>", threads.ThreadView.as_view()),
    path(
        "releases/<id:release_id>/threads/<id:thread_id>/comments",
        threads.ThreadCommentsView.as_view(),
    ),
    path(
        "releases/<id:release_id>/threads/<id:thread_id>/resolve",
        threads.ThreadResolveView.as_view(),
    ),
    path(
        "releases/<id:release_id>/threads/<id:thread_id>/reopen",
        threads.ThreadReopenView.as_view(),
    ),
    *renewals.routes.urls,
    path("reviews", releases.ReviewsView.as_view()),
    *absences.routes.urls,
    *deployments.routes.urls,
    path("served", served.ServedView.as_view()),
    *usage.routes.urls,
    path("audit/events", audit.AuditEventsView.as_view()),
    *audit.routes.urls,
    *audit_filters.routes.urls,
    path("audit/export", audit.AuditExportView.as_view()),
    *audit_exports.routes.urls,
    path("audit/exports/<id:export_id>/file", audit_exports.AuditExportFileView.as_view()),
    path("audit/checkpoint", audit.AuditCheckpointView.as_view()),
]
