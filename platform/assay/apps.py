from django.apps import AppConfig


class AssayConfig(AppConfig):
    """The surfaces: management API, gateway, portal, command line."""

    name = "assay"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Let the audit log be searched by the words in which the portal shows its events."""
        # Models can be imported from here on.
        from assay.portal.words import ATTEMPTS, OF_A_PERSON, PHRASES
        from governance.audit.search.action_words import action_words_register

        action_words_register(PHRASES)
        action_words_register(ATTEMPTS)
        for action, phrases in OF_A_PERSON.items():
            for phrase in phrases:
                action_words_register({action: phrase})
