"""The URLs below `/node/v1/`."""

from __future__ import annotations

from django.urls import path

from assay.node_api import engines, files, jobs, joining
from assay.node_api.endpoint import ATTEMPT_PATH

OF_DEPLOYMENT = "deployments/<id:deployment_id>"

app_name = "node"
urlpatterns = [
    *joining.routes.urls,
    *engines.routes.urls,
    *jobs.routes.urls,
    path(f"{OF_DEPLOYMENT}/files/<digest:digest>", files.NodeFileView.as_view()),
    path(f"{OF_DEPLOYMENT}/references/<digest:digest>", files.NodeReferenceFileView.as_view()),
    path(f"{OF_DEPLOYMENT}/media", files.NodeMediaView.as_view()),
    path(f"{OF_DEPLOYMENT}/media/<digest:digest>", files.NodeMediaFileView.as_view()),
    path(f"{ATTEMPT_PATH}/files/<digest:digest>", files.NodeJobFileView.as_view()),
    path(f"{ATTEMPT_PATH}/arrivals/<digest:digest>", files.NodeJobUploadView.as_view()),
]
