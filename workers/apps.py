from django.apps import AppConfig


class WorkersConfig(AppConfig):
    """Jobs, deployments, the Celery app and dispatch."""

    name = "workers"
    default_auto_field = "django.db.models.BigAutoField"
