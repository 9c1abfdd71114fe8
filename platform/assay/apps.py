from django.apps import AppConfig


class AssayConfig(AppConfig):
    """The surfaces: management API, gateway, portal, command line."""

    name = "assay"
    default_auto_field = "django.db.models.BigAutoField"
