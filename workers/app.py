"""The Celery application. Web processes send by task name; only workers import task modules."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
# A worker serves no URL: Django's system checks would import the whole portal into it.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

app = Celery("assay")
app.config_from_object("django.conf:settings", namespace="CELERY")
