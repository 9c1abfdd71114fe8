from django.apps import AppConfig


class AssayConfig(AppConfig):
    """The app of the surfaces: management API, gateway, portal, command line."""

    name = "assay"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the portal's words for events, so that they can be searched in the audit log."""
        # Imported here, because models cannot be imported earlier.
        from assay.portal.words import ATTEMPTS, OF_A_PERSON, PHRASES
        from governance.audit.search.action_words import action_words_register

        action_words_register(PHRASES)
        action_words_register(ATTEMPTS)
        for action, phrases in OF_A_PERSON.items():
            for phrase in phrases:
                action_words_register({action: phrase})
