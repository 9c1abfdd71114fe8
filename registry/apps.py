from django.apps import AppConfig


class RegistryConfig(AppConfig):
    """Models, versions, datasets, intake, evaluations, releases, and the MLflow adapter."""

    name = "registry"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Imported here: models cannot be imported before the app registry is ready.
        from governance.people.erasure import follow_erasure
        from governance.reviews.policies.lifecycle import follow_activation
        from governance.reviews.policies.vocabulary import vocabulary_register
        from registry.feedback.services import feedback_forget_person
        from registry.releases.states import follow_places
        from registry.releases.vocabulary import VOCABULARY
        from registry.releases.voiding import releases_void_stale, review_policy_activated
        from registry.responses.services import responses_forget_person

        vocabulary_register(VOCABULARY)
        follow_activation(review_policy_activated)
        follow_places(releases_void_stale)
        follow_erasure(feedback_forget_person)
        follow_erasure(responses_forget_person)
