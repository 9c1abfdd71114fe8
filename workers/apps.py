from django.apps import AppConfig


class WorkersConfig(AppConfig):
    """Jobs, deployments, the Celery app and dispatch."""

    name = "workers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Give the policy its columns of deployments, and the alarms those of workers."""
        # Models can be imported from here on.
        from workers import database_watch, dropped_messages
        from workers.deployments.alarms import register_alarms
        from workers.deployments.resources import register_columns

        register_columns()
        register_alarms()
        database_watch.register_alarms()
        dropped_messages.register_alarms()
