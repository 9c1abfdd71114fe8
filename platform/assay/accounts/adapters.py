"""Hooks of allauth: the client's identity, the steps of a sign-in, and its completion.

allauth keeps the progress of a sign-in in the session; the checks, counts and audit events of every
step are ours (`governance.people.signing_in`, `assay.accounts.factors`).
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, cast

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.internal.stagekit import clear_login
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from assay.accounts import crypto, single_sign_on
from assay.accounts.factor_requirement import require_second_factor
from assay.accounts.pages import refusal
from assay.middleware import client_address
from governance.errors import DomainError, NotAuthenticated
from governance.people.models import Person
from governance.people.signing_in import sign_in_attempt, sign_in_record

# Session key of the time at which the last use was recorded, in seconds since the epoch.
SEEN = "assay_seen_at"
UNKNOWN_ADDRESS = "0.0.0.0"  # noqa: S104 (the column is not nullable; no socket binds to it)


def methods_of(request: HttpRequest, person: Person) -> list[str]:
    """Return the authentication methods that the person used in this session, in order."""
    methods = []
    for record in get_authentication_records(request, person):
        method = str(record.get("type") if record["method"] == "mfa" else record["method"])
        methods.append({"socialaccount": "sso"}.get(method, method))
    return list(dict.fromkeys(methods))


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Accounts are created by administrators and identity providers, not by visitors."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the client's address, from the same trusted proxies as elsewhere."""
        return client_address(request) or UNKNOWN_ADDRESS

    def get_login_stages(self) -> list[str]:
        return ["allauth.mfa.stages.AuthenticateStage"]

    def respond_user_inactive(self, request: HttpRequest, user: Any) -> HttpResponse:
        error = NotAuthenticated(
            f"The account of {user.name} is inactive and cannot sign in.",
            attempt=sign_in_attempt(person=user),
        )
        return refusal(request, error)

    def login(self, request: HttpRequest, user: Any) -> None:
        """Record the completed sign-in in the audit log, then begin the session."""
        person = cast(Person, user)
        methods = methods_of(request, person)
        try:
            sign_in_record(person=person, methods=methods)
        except DomainError as error:
            clear_login(request)
            logout(request)
            raise ImmediateHttpResponse(refusal(request, error)) from error
        super().login(request, person)
        require_second_factor(request, person)
        begin_session(request)

    def post_login(self, request: HttpRequest, user: Any, **more: Any) -> HttpResponse:
        """Redirect, without allauth's message and signal."""
        target = more.get("redirect_url")
        return redirect(target if target and self.is_safe_url(target) else "portal:overview")


def begin_session(request: HttpRequest) -> None:
    """Record the session's person, device and address, and set its end; use does not extend it."""
    request.session.set_expiry(timezone.now() + timedelta(seconds=settings.SESSION_COOKIE_AGE))
    request.session[SEEN] = int(time.time())
    request.session.save()
    UserSession.objects.create_from_request(request)


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Secrets are encrypted; codes and passkeys name the platform."""

    def encrypt(self, text: str) -> str:
        return crypto.encrypt(text)

    def decrypt(self, encrypted_text: str) -> str:
        return crypto.decrypt(encrypted_text)

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        return {**super().get_public_key_credential_rp_entity(), "name": "Assay"}


class SingleSignOnAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """The identity provider identifies the person; we find the account."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        """Return false: `pre_social_login` has already found or created the account."""
        return False

    def serialize_instance(self, instance: Any) -> dict[str, Any]:
        """Omit the password hash from the data that waits in the session for a second factor."""
        fields: dict[str, Any] = super().serialize_instance(instance)
        fields.pop("password", None)
        return fields

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        try:
            single_sign_on.admit(sociallogin)
        except DomainError as error:
            raise ImmediateHttpResponse(refusal(request, error)) from error

    def on_authentication_error(self, request: HttpRequest, provider: Any, **more: Any) -> None:
        error = single_sign_on.failure(more.get("error"), more.get("exception"))
        raise ImmediateHttpResponse(refusal(request, error))
