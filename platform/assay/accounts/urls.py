"""The addresses that allauth knows by name; the screens are the portal's."""

from __future__ import annotations

from django.urls import path

from assay.portal.views import sign_in

urlpatterns = [
    path("sign-in", sign_in.SignIn.as_view(), name="account_login"),
    path("sign-in/second-factor", sign_in.SecondFactor.as_view(), name="mfa_authenticate"),
]
