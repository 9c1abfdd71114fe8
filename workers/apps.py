from django.apps import AppConfig


class WorkersConfig(AppConfig):
    """Django application for jobs, deployments, nodes and workers."""

    name = "workers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register columns of deployments for policy decisions, and alarms."""
        # Models can be imported only from here on.
        from workers import database_watch, dropped_messages
        from workers.deployments.alarms import register_alarms
        from workers.deployments.resources import register_columns
        from workers.storage import archiving

        register_columns()
        register_alarms()
        database_watch.register_alarms()
        dropped_messages.register_alarms()
        archiving.register_alarms()
