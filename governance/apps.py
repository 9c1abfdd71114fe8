from django.apps import AppConfig


class GovernanceConfig(AppConfig):
    """Departments, people, keys, policy, quotas, reviews, audit. Does not know models or tasks."""

    name = "governance"
    default_auto_field = "django.db.models.BigAutoField"
