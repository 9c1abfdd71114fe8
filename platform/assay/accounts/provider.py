"""The OpenID Connect provider as allauth meets it."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.http import HttpRequest
from django.urls import reverse


class SignOnAdapter(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]
    """Comes back to our own address, which names no provider: there is one."""

    def get_callback_url(self, request: HttpRequest, app: Any) -> str:
        return request.build_absolute_uri(reverse("portal:sso_callback"))
