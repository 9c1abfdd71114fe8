"""Sign-in: django-allauth's flows behind our services, adapters and screens."""
