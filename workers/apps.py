from django.apps import AppConfig


class WorkersConfig(AppConfig):
    """Jobs, deployments, the Celery app and dispatch."""

    name = "workers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Tell the policy where a deployment's modality and classification stand."""
        from workers.deployments.resources import register_columns

        register_columns()
