"""The addresses below `/node/v1/`."""

from __future__ import annotations

from django.urls import path

from assay.node_api import engines, files, jobs, joining, media

# A job as long as a worker of the node holds it.
HELD = "jobs/<uuid:job_id>/attempts/<id:fence>"

app_name = "node"
urlpatterns = [
    path("join", joining.NodeJoinView.as_view()),
    path("challenge", joining.NodeChallengeView.as_view()),
    path("session", joining.NodeSessionView.as_view()),
    path("session/current", joining.NodeCurrentSessionView.as_view()),
    path("assignments", engines.NodeAssignmentsView.as_view()),
    path("deployments/<id:deployment_id>/plan", engines.NodePlanView.as_view()),
    path("deployments/<id:deployment_id>/files/<digest:digest>", files.NodeFileView.as_view()),
    path("deployments/<id:deployment_id>/references", engines.NodeReferencesView.as_view()),
    path(
        "deployments/<id:deployment_id>/references/<digest:digest>",
        engines.NodeReferenceFileView.as_view(),
    ),
    path("deployments/<id:deployment_id>/media", media.NodeMediaView.as_view()),
    path("deployments/<id:deployment_id>/media/<digest:digest>", media.NodeMediaFileView.as_view()),
    path("replicas", engines.NodeReplicasView.as_view()),
    path("heartbeats", engines.NodeHeartbeatsView.as_view()),
    path("workers/keys", engines.NodeWorkerKeyView.as_view()),
    path("workers/tasks", engines.NodeWorkerTasksView.as_view()),
    path("workers/stop", engines.NodeWorkerStopView.as_view()),
    path("jobs/<uuid:job_id>/claim", jobs.NodeJobClaimView.as_view()),
    path(f"{HELD}/heartbeat", jobs.NodeJobHeartbeatView.as_view()),
    path(f"{HELD}/reports", jobs.NodeJobReportsView.as_view()),
    path(f"{HELD}/checkpoints", jobs.NodeJobCheckpointsView.as_view()),
    path(f"{HELD}/deliver", jobs.NodeJobDeliverView.as_view()),
    path(f"{HELD}/fail", jobs.NodeJobFailView.as_view()),
    path(f"{HELD}/canceled", jobs.NodeJobCanceledView.as_view()),
    path(f"{HELD}/paused", jobs.NodeJobPausedView.as_view()),
    path(f"{HELD}/files/<digest:digest>", jobs.NodeJobFileView.as_view()),
    path(f"{HELD}/arrivals/<digest:digest>", jobs.NodeJobUploadView.as_view()),
]
