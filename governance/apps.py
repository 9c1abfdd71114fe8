from django.apps import AppConfig


class GovernanceConfig(AppConfig):
    """Departments, people, keys, policy, quotas, reviews, audit. Does not know models or tasks."""

    name = "governance"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Imported here: models cannot be imported before the app registry is ready.
        from governance.people.erasure import follow_erasure
        from governance.request_log.services import request_logs_forget_person

        follow_erasure(request_logs_forget_person)
